// Arrow keys go from word to word; Home and End to the ends. The words of one text have one stop for Tab.
document.addEventListener("keydown", (event) => {
  const word = event.target.closest?.(".hfm .w[tabindex]");
  if (!word) return;
  const words = [...word.parentElement.querySelectorAll(".w[tabindex]")];
  const at = words.indexOf(word);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: words.length - 1 }[event.key];
  if (to === undefined || !words[to]) return;
  event.preventDefault();
  word.tabIndex = -1;
  words[to].tabIndex = 0;
  words[to].focus();
});
window.explorer = {
  // What is on the screen is in the address bar, too.
  link(query) {
    const theme = new URLSearchParams(location.search).get("__theme");
    const url = location.pathname + "?" + query + (theme ? "&__theme=" + theme : "");
    history.replaceState(null, "", url);
    return location.origin + location.pathname + "?" + query;
  },
  download(file) {
    if (!file) return;
    const [name, type, data] = JSON.parse(file);
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const a = document.createElement("a");
    a.href = URL.createObjectURL(new Blob([bytes], { type }));
    a.download = name;
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 1000);
  },
};
