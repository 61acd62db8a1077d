// Chosen tokens light up what spoke for and against them. Listens to the document, so that it serves every text that is
// on the page now or later; text goes in as text only.
(() => {
  const root = document.documentElement.classList;
  if (root.contains("scripted")) return; // by another cell of a notebook
  root.add("scripted");
  const found = new WeakMap();
  const signed = (x) => (x === 0 ? "0.000" : (x > 0 ? "+" : "") + (Math.abs(x) >= 0.0005 ? x.toFixed(3) : x.toExponential(0)));
  const unsigned = (x) => signed(x).replace("+", "");
  const side = (x) => (x > 0 ? "pos" : x < 0 ? "neg" : "");
  const sum = (numbers) => numbers.reduce((total, x) => total + x, 0);
  const short = (text, most) => ([...text].length <= most ? text : [...text].slice(0, most - 1).join("") + "…");

  const open = (box) => {
    if (!found.has(box)) {
      const bytes = Uint8Array.from(atob(box.dataset.values), (c) => c.charCodeAt(0));
      const options = [...box.querySelectorAll("[role=option]")];
      found.set(box, {
        values: new Float32Array(bytes.buffer),
        terms: JSON.parse(box.dataset.terms),
        words: [...box.querySelectorAll(".text .w")],
        options,
        lines: [...box.querySelectorAll(".map tbody tr")],
        from: 0,
        to: options.length,
        anchor: 0,
      });
    }
    return found.get(box);
  };
  const textOf = (options) => {
    const range = document.createRange();
    range.setStartBefore(options[0]);
    range.setEndAfter(options[options.length - 1]);
    return range.toString().trim();
  };

  // Light up what the tokens from one to before another have.
  const light = (box, from, to) => {
    const { values, terms, words, options, lines } = open(box);
    const sums = words.map((_, i) => {
      let total = 0;
      for (let t = from; t < to; t++) total += values[t * words.length + i];
      return total;
    });
    const peak = sums.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    words.forEach((word, i) => {
      const part = peak ? Math.abs(sums[i]) / peak : 0;
      word.classList.toggle("pos", sums[i] > 0);
      word.classList.toggle("neg", sums[i] < 0);
      word.style.setProperty("--a", (MAX_ALPHA * part).toFixed(3));
      word.style.setProperty("--u", Math.min(1.5 * part, 1).toFixed(2));
      if (word.getAttribute("role") === "option") return;
      const says = { pos: "speaks for it", neg: "speaks against it", "": "no relevance" }[side(sums[i])];
      word.title = word.ariaLabel = `${word.textContent}: ${signed(sums[i])} (${says})`;
    });
    [options, lines].forEach((all) => all.forEach((one, t) => one.classList.toggle("lit", t >= from && t < to)));
    const count = to - from;
    const all = count === options.length ? `all ${count} tokens` : `“${short(textOf(options.slice(from, to)), 60)}”`;
    box.querySelector(".asked").textContent = count === 1 ? options[from].title : `Why ${all}?` + (count < options.length ? ` ${count} tokens` : "");
    const { score, ...parts } = Object.fromEntries(
      Object.entries(terms).map(([name, numbers]) => [name, sum(numbers.slice(from, to))]),
    );
    const total = sum(Object.values(parts));
    const added = Object.entries(parts).map(([name, x]) => `${name} ${signed(x)}`).join(" + ");
    box.querySelector(".sum b").textContent =
      `${added} = ${unsigned(total)} of score ${unsigned(score)} (gap ${unsigned(score - total)})`;
    const whole = sum(sums.map(Math.abs)) || 1;
    const order = [...sums.keys()].sort((i, j) => Math.abs(sums[j]) - Math.abs(sums[i]));
    [...box.querySelector(".sums tbody").rows].forEach((line, rank) => {
      const [i, [name, relevance, share, bars]] = [order[rank], line.cells];
      const [x, width] = [sums[i], peak ? (50 * Math.abs(sums[i])) / peak : 0];
      name.firstChild.textContent = short(words[i].textContent, 40);
      relevance.textContent = signed(x);
      relevance.className = `num ${side(x)}-text`;
      share.textContent = `${((100 * Math.abs(x)) / whole).toFixed(1)}%`;
      const bar = document.createElement("i");
      bar.style.cssText = `margin-left:${x < 0 ? 50 - width : 50}%;width:${width}%;background:rgb(var(--${x < 0 ? "neg" : "pos"}))`;
      bars.firstChild.replaceChildren(bar);
    });
    return order.map((i) => words[i]);
  };

  const choose = (box, from, to) => {
    const state = open(box);
    Object.assign(state, { from, to });
    state.options.forEach((option, t) => option.setAttribute("aria-selected", t >= from && t < to));
    const before = box.querySelector(".before");
    const strongest = light(box, from, to).find((word) => before.contains(word));
    if (!strongest || before.scrollHeight <= before.clientHeight) return;
    const place = strongest.getBoundingClientRect().top - before.getBoundingClientRect().top;
    if (place < 0 || place > before.clientHeight - 32) before.scrollTop += place - before.clientHeight / 2;
  };
  const one = (box, t) => {
    open(box).anchor = t;
    choose(box, t, t + 1);
  };
  const upTo = (box, t) => {
    const { anchor } = open(box);
    choose(box, Math.min(anchor, t), Math.max(anchor, t) + 1);
  };

  // The one stop for Tab is the token that was last gone to.
  let moving = false;
  const goTo = (box, t) => {
    open(box).options.forEach((option, i) => (option.tabIndex = i === t ? 0 : -1));
    moving = true;
    open(box).options[t].focus({ preventScroll: true });
    moving = false;
  };

  // Which token of which text an event is at: in the text, or a line of the map.
  const at = (event) => {
    const box = event.target.closest?.(".generation");
    if (!box) return [null, -1];
    const { options, lines } = open(box);
    const t = options.indexOf(event.target.closest("[role=option]"));
    return [box, t >= 0 ? t : lines.indexOf(event.target.closest(".map tbody tr"))];
  };
  let dragged = null; // the text whose tokens are being dragged over
  document.addEventListener("pointerover", (event) => {
    const [box, t] = at(event);
    if (t < 0 || event.pointerType !== "mouse") return;
    if (event.buttons === 1 && dragged === box) upTo(box, t);
    else light(box, t, t + 1);
  });
  document.addEventListener("pointerout", (event) => {
    const [box, t] = at(event);
    if (t >= 0 && event.pointerType === "mouse") light(box, open(box).from, open(box).to);
  });
  document.addEventListener("pointerdown", (event) => {
    const [box, t] = at(event);
    dragged = t >= 0 && event.pointerType === "mouse" ? box : null;
    if (dragged && event.button === 0 && !event.shiftKey) open(box).anchor = t;
  });
  document.addEventListener("click", (event) => {
    const [box, t] = at(event);
    const button = event.target.closest?.(".generation .choices button");
    const longer = box?.querySelector(".up-to");
    if (button && button === longer) {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    } else if (button) {
      open(box).anchor = Number(button.dataset.from);
      choose(box, Number(button.dataset.from), Number(button.dataset.to));
    } else if (t >= 0) {
      goTo(box, t);
      if (event.shiftKey || longer?.getAttribute("aria-pressed") === "true") upTo(box, t);
      else one(box, t);
      longer?.setAttribute("aria-pressed", "false");
    }
  });
  document.addEventListener("focusin", (event) => {
    const option = event.target.closest?.(".generation [role=option]");
    if (option && !moving && option.matches(":focus-visible")) one(...at(event));
  });
  document.addEventListener("keydown", (event) => {
    if (!event.target.closest?.(".generation [role=option]")) return;
    const [box, t] = at(event);
    const { options } = open(box);
    const last = options.length - 1;
    const to = { ArrowRight: t + 1, ArrowDown: t + 1, ArrowLeft: t - 1, ArrowUp: t - 1, Home: 0, End: last }[event.key];
    if (to === undefined) {
      if (event.key === "Enter" || event.key === " ") one(box, t);
      else if (event.key === "Escape" || ((event.ctrlKey || event.metaKey) && event.key === "a")) choose(box, 0, last + 1);
      else return;
    } else if (to >= 0 && to <= last) {
      goTo(box, to);
      if (event.shiftKey) upTo(box, to);
      else one(box, to);
    }
    event.preventDefault();
  });
})();
