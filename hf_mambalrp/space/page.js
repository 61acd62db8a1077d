// Arrow keys go from word to word and from cell to cell; Home and End to the ends of a row. A text and a heat map have
// one stop for Tab each.
document.addEventListener("keydown", (event) => {
  const here = event.target.closest?.(".hfm .w[tabindex], .hfm .heat td[tabindex]");
  if (!here) return;
  const row = [...here.parentElement.querySelectorAll(".w[tabindex], td[tabindex]")];
  const at = row.indexOf(here);
  const cell = (line) => line?.cells?.[here.cellIndex];
  const to = {
    ArrowRight: row[at + 1],
    ArrowLeft: row[at - 1],
    ArrowUp: cell(here.parentElement.previousElementSibling),
    ArrowDown: cell(here.parentElement.nextElementSibling),
    Home: row[0],
    End: row[row.length - 1],
  }[event.key];
  if (!to?.hasAttribute("tabindex")) return;
  event.preventDefault();
  here.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
});
// A cell of a heat map is too small for its number: the line below says it.
const read = (event) => {
  const cell = event.target.closest?.(".hfm .heat td[tabindex]");
  if (!cell) return;
  const table = cell.closest("table");
  const [row, column] = [cell.parentElement.cells[0], table.tHead.rows[0].cells[cell.cellIndex]];
  table.parentElement.nextElementSibling.firstElementChild.textContent =
    `${row.textContent} / ${column.textContent}: ${cell.title}`;
};
document.addEventListener("mouseover", read);
document.addEventListener("focusin", read);
// What is asked stands behind the # of the address: it never reaches a server's log, and no server bounds its length.
window.addEventListener("hashchange", () => location.reload());
window.explorer = {
  asked: () => location.hash.slice(1),
  // What is on the screen is in the address bar, too.
  link(query) {
    history.replaceState(null, "", location.pathname + location.search + "#" + query);
    return location.origin + location.pathname + "#" + query;
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
