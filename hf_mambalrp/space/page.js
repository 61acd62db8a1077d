// Arrow keys go from word to word and from cell to cell; Home and End to the ends of a row. A text and a heat map have
// one stop for Tab each. Generated tokens have their own script.
document.addEventListener("keydown", (event) => {
  const here = event.target.closest?.(".hfm .w[role=img][tabindex], .hfm .heat td[tabindex]");
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
// A part of a strip leads to its sentence in the text; the address stays what is asked.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.(".hfm .strip a, .hfm .passages a");
  const sentence = link && document.getElementById(link.hash.slice(1));
  if (!sentence) return;
  event.preventDefault();
  sentence.closest("details").open = true;
  document.querySelector(".hfm .reached")?.classList.remove("reached");
  sentence.classList.add("reached");
  sentence.tabIndex = -1;
  sentence.focus({ preventScroll: true });
  sentence.scrollIntoView({ block: "center" });
});
// What is asked stands behind the # of the address: it never reaches a server's log, and no server bounds its length.
window.addEventListener("hashchange", () => location.reload());
// The tab that the link asks for is the one that opens; the first where it asks for none that there is.
const parts = window.gradio_config?.components ?? [];
const kinds = parts.filter(({ type }) => type === "tabitem").map(({ props }) => props.id);
const asked = new URLSearchParams(location.hash.slice(1)).getAll("kind").pop();
let opening = kinds.includes(asked) ? asked : kinds[0];
for (const { type, props } of parts) if (type === "tabs") props.selected = opening;
// In a tab that is opened for the first time gradio gives fields what they begin with once more, a frame after it has
// shown them: until then nothing can be typed, for it would be lost.
const settle = (panel) => {
  panel.inert = true;
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => (panel.inert = false))));
};
window.explorer = {
  // A tab's answer is put into the page when the tab is opened for the first time; the one of the link is asked for.
  placed(kind, trigger) {
    settle(document.getElementById(`${kind}-answer`).closest("[role=tabpanel]"));
    if (kind !== (opening ?? kind)) return;
    opening = "";
    trigger("apply");
  },
  // Saves a file, and leaves none in the page.
  download(file) {
    const [name, type, data] = JSON.parse(file);
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const a = document.createElement("a");
    a.href = URL.createObjectURL(new Blob([bytes], { type }));
    a.download = name;
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 1000);
    return "";
  },
};
// What is below an answer stays open when another answer comes, and its link is in the address bar, too.
let unfolded = false;
document.addEventListener("toggle", ({ target }) => target.matches?.(".more") && (unfolded = target.open), true);
new MutationObserver(() => {
  const more = document.querySelector(".more:not([data-seen])");
  if (!more) return;
  const { asked, file } = more.dataset;
  more.dataset.seen = "";
  more.open = unfolded;
  more.querySelector("input").value = file === undefined ? `${location.origin}${location.pathname}#${asked}` : "";
  if (file === undefined) history.replaceState(null, "", `${location.pathname}${location.search}#${asked}`);
  if (picker()) preview();
}).observe(document, { subtree: true, childList: true, attributeFilter: ["data-seen"] }); // gradio keeps what is alike
document.addEventListener("click", ({ target }) => {
  const [form, copies] = [target.dataset?.form, target.closest?.(".more .code button")];
  if (copies) {
    const field = target.parentElement.querySelector("textarea, input");
    field.select();
    document.execCommand("copy"); // the newer way is there on secure pages alone
    target.textContent = "Copied";
    setTimeout(() => (target.textContent = "Copy"), 1000);
  } else if (form) {
    const { asked, file } = target.closest(".more").dataset;
    window.explorer.wanted = `${form} ${asked} ${file === undefined ? "" : pictureBox().value}`;
    document.getElementById("file").click();
  }
});
// An example, or a picture, is asked about as if somebody typed it and pressed Enter.
const enter = (box, text) => {
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  const lines = box.matches("textarea"); // where Enter alone begins a line
  box.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", shiftKey: lines, bubbles: true }));
};
document.addEventListener("click", ({ target }) => {
  const text = target.dataset?.text;
  if (text !== undefined) enter(target.closest("[role=tabpanel]").querySelector("textarea"), text);
});
// A picture becomes base64 here, small enough for a request: it is text as all that is asked, and the server keeps none.
const SENT = ["image/jpeg", "image/png", "image/webp"];
const picker = () => document.getElementById("picture-file");
const pictureBox = () => document.querySelector("#picture-data textarea, #picture-data input");
const drawn = (bitmap, side) =>
  new Promise((done) => {
    const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    canvas.toBlob(done, "image/jpeg", 0.92);
  });
const sendable = async (file) => {
  const [bytes, pixels] = [Number(picker().dataset.bytes), Number(picker().dataset.pixels)];
  const bitmap = await createImageBitmap(file).catch(() => null);
  // The server says what it is that no browser reads, from how it begins.
  if (!bitmap) return file.size <= bytes ? file : file.slice(0, 512);
  if (SENT.includes(file.type) && file.size <= bytes && bitmap.width * bitmap.height <= pixels) return file;
  let side = 1024;
  let smaller = await drawn(bitmap, side);
  while (smaller.size > bytes && side > 1) smaller = await drawn(bitmap, (side *= 0.8));
  return smaller;
};
const preview = () => {
  const [image, picture] = [document.querySelector(".drop img"), pictureBox().value];
  const example = [...document.querySelectorAll(".thumb")].find((thumb) => thumb.dataset.picture === picture);
  const source = example ? example.querySelector("img").src : picture;
  image.hidden = !source.startsWith("data:image/"); // a link may hold any text, and nothing is loaded from elsewhere
  if (!image.hidden && image.src !== source) image.src = source;
};
const askAbout = (picture) => {
  enter(pictureBox(), picture);
  preview();
};
const readFile = async (file) => {
  const reader = new FileReader();
  reader.onload = () => askAbout(reader.result);
  reader.readAsDataURL(await sendable(file));
};
const given = (event, files) => {
  const file = picker()?.offsetParent && files?.[0];
  if (!file) return;
  event.preventDefault();
  readFile(file);
};
document.addEventListener("change", (event) => {
  if (event.target !== picker()) return;
  given(event, event.target.files);
  event.target.value = "";
});
document.addEventListener("paste", (event) => given(event, event.clipboardData?.files));
document.addEventListener("dragover", (event) => event.target.closest?.(".drop") && event.preventDefault());
document.addEventListener("drop", (event) => event.target.closest?.(".drop") && given(event, event.dataTransfer?.files));
document.addEventListener("click", (event) => {
  const thumb = event.target.closest?.(".thumb");
  if (thumb) askAbout(thumb.dataset.picture);
});
