// What the tour of all screens does in the page; it is put there once, after axe. Every verb answers, or throws in words.
// `arguments[0]`: the parts of the catalogues, by which a key is known that was shown in place of its words.
const KEY = new RegExp(`^(${arguments[0].join("|")})(\\.\\w+)+$`);
/** Longest that the page may take to come to rest, or something to appear, in milliseconds. */
const PATIENCE_MS = 25_000;
/** Between two looks whether it has. */
const LOOK_MS = 12;
/** Longest that a font is waited for. */
const FONTS_MS = 5_000;

// Nothing moves while it is looked at. A sheet of this kind needs no leave of the page's policy.
const still = new CSSStyleSheet();
still.replaceSync("*, *::before, *::after { transition: none !important; animation: none !important }");
document.adoptedStyleSheets = [still];

// The hidden inputs of choices are no targets: the label around them is, and it is large.
const CHOICES = ["radio", "checkbox", "range"].map((type) => `:not([type=${type}])`).join("");
const TARGETS = `a, button, select, textarea, input${CHOICES}, [role=tab], [role=option]`;
window.axe.configure({ rules: [{ id: "target-size", enabled: true, selector: TARGETS }] });

/** Questions to the engine that have no answer yet. */
let asked = 0;
const { fetch } = window;
window.fetch = async (...request) => {
  asked += 1;
  try {
    return await fetch.apply(window, request);
  } finally {
    asked -= 1;
  }
};
/** Counts what changes on the page. */
let changes = 0;
const counter = new MutationObserver(() => {
  changes += 1;
});
counter.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });

const pause = () => new Promise((done) => setTimeout(done, LOOK_MS));

/** Waits until nothing is under way and nothing has changed for a few looks. */
async function rest() {
  const end = performance.now() + PATIENCE_MS;
  // Text is as wide as its font, which changes nothing in the document when it comes.
  await Promise.race([document.fonts.ready, new Promise((done) => setTimeout(done, FONTS_MS))]);
  for (let quiet = 0; quiet < 3; ) {
    const before = changes;
    await pause();
    quiet = asked === 0 && changes === before ? quiet + 1 : 0;
    if (performance.now() > end) throw new Error("the page does not come to rest");
  }
}

/** What is laid out under a selector. */
const all = (selector) =>
  [...document.querySelectorAll(selector)].filter((found) => found.getClientRects().length > 0);

function one(selector, at = 0) {
  const found = all(selector)[at];
  if (found === undefined) throw new Error(`no '${selector}' (${at}) on the page:\n${document.body.innerText}`);
  return found;
}

async function wait(selector) {
  const end = performance.now() + PATIENCE_MS;
  while (all(selector).length === 0) {
    if (performance.now() > end) one(selector);
    await pause();
  }
  await rest();
}

/** What a selector finds, once it is there and can be used. */
async function usable(selector, at = 0) {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const found = all(selector)[at];
    if (found !== undefined && found.disabled !== true) return found;
    if (performance.now() > end) return one(selector, at);
    await pause();
  }
}

/** Gives a field a value as a person does; React hears of it by the event. */
function give(field, value, event) {
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, value);
  field.dispatchEvent(new Event(event, { bubbles: true }));
}

const ACTS = {
  press: async (selector, at) => (await usable(selector, at)).click(),
  fill: async (name, text) => give(await usable(`[name="${name}"]`), text, "input"),
  /** By the list at the foot of the door, or on the first page of a first run, which asks for the language itself. */
  speak: (language) => {
    const [list] = all("main select");
    if (list === undefined) one(`main input[value=${language}]`).click();
    else give(list, language, "change");
  },
  wait,
};

/** Goes to a screen, or stays where `place` is null, and acts there. */
async function reach(place, acts) {
  const found = [];
  const page = document.scrollingElement;
  if (place !== null && location.hash !== `#${place}`) {
    const before = document.querySelector("h1");
    for (const scrolled of [page, document.querySelector("main")]) scrolled.scrollTo(0, scrolled.scrollHeight);
    const arrived = new Promise((done) => addEventListener("hashchange", done, { once: true }));
    location.hash = `#${place}`;
    await arrived;
    await rest();
    const isOther = document.querySelector("h1") !== before;
    if (isOther && page.scrollTop + document.querySelector("main").scrollTop > 1) found.push("begins below its top");
  }
  for (const [verb, ...given] of acts) {
    await ACTS[verb](...given);
    await rest();
  }
  return found;
}

const words = (element) => `'${element.textContent.trim().slice(0, 40)}' (${element.tagName.toLowerCase()})`;

/** What is seen where the middle of a box lies, or of as much of it as is in sight. */
function inTheMiddleOf(box) {
  const edge = box.getBoundingClientRect();
  const middle = (from, to, most) => (Math.max(from, 0) + Math.min(to, most)) / 2;
  return document.elementFromPoint(middle(edge.left, edge.right, innerWidth), middle(edge.top, edge.bottom, innerHeight));
}

/** What of the page's text is cut off, spills over or lies outside, and what is no text for people. */
async function measure(language) {
  const found = [];
  // A slow machine draws a dialog some time after it is there.
  const end = performance.now() + 2_000;
  const isBehind = () => all("[role=dialog]").some((dialog) => !dialog.contains(inTheMiddleOf(dialog)));
  while (isBehind() && performance.now() < end) await pause();
  const [page, main] = [document.scrollingElement, document.querySelector("main")];
  const { lang } = document.documentElement;
  if (!lang.startsWith(language)) found.push(`the page says that it speaks ${lang}`);
  if (page.scrollWidth > innerWidth + 1) found.push(`the page scrolls sideways: ${page.scrollWidth} of ${innerWidth}`);
  for (const box of [main, ...document.querySelectorAll("[role=dialog]")]) {
    if (box.scrollWidth > box.clientWidth + 1) found.push(`${box.tagName} scrolls sideways: ${box.scrollWidth} of ${box.clientWidth}`);
  }
  for (const dialog of all("[role=dialog]")) {
    const seen = inTheMiddleOf(dialog);
    if (!dialog.contains(seen)) found.push(`a dialog is behind ${seen?.tagName}`);
  }
  // A narrow window is one long page; in a wide one only the middle scrolls.
  const isWide = innerWidth > 760 && document.querySelector("nav") !== null;
  if (isWide && page.scrollHeight > innerHeight + 1) found.push(`the window itself scrolls: ${page.scrollHeight} of ${innerHeight}`);

  const styles = new Map();
  const styleOf = (element) => {
    const known = styles.get(element) ?? getComputedStyle(element);
    styles.set(element, known);
    return known;
  };
  const isHidden = (element) => {
    for (let box = element; box !== null; box = box.parentElement) {
      const { clipPath, opacity, visibility } = styleOf(box);
      if (clipPath !== "none" || opacity === "0" || visibility === "hidden") return true;
    }
    return false;
  };
  for (const element of document.body.querySelectorAll("*")) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data.trim());
    const said = [...texts, ...["aria-label", "title", "placeholder"].map((name) => element.getAttribute(name) ?? "")];
    // Places in plans and policies are written like keys.
    const isCode = element.closest("code, pre, textarea") !== null;
    const odd = said.find((text) => (!isCode && KEY.test(text)) || /\{\{|\[object |\bNaN\b/.test(text));
    if (odd !== undefined) found.push(`no words for people: '${odd}'`);
    if (texts.join("") === "" || element.getClientRects().length === 0) continue;
    if (element.closest("svg, option") !== null || isHidden(element)) continue;
    const { display, overflowX, overflowY, textOverflow } = styleOf(element);
    const scrolls = (overflow) => overflow === "auto" || overflow === "scroll";
    const cuts = (overflow) => overflow === "hidden" || overflow === "clip";
    const { left, right } = element.getBoundingClientRect();
    if (display !== "inline" && element.clientWidth > 0) {
      const isWider = element.scrollWidth > element.clientWidth + 1;
      if (isWider && textOverflow !== "ellipsis" && !scrolls(overflowX)) found.push(`does not fit: ${words(element)}`);
      if (cuts(overflowY) && element.scrollHeight > element.clientHeight + 1) found.push(`cut off below: ${words(element)}`);
    }
    // A graph scrolls within itself; its boxes are looked at below.
    if (element.closest(".react-flow") !== null) continue;
    let isDone = false;
    for (let box = element.parentElement; box !== null && !isDone; box = box.parentElement) {
      const of = styleOf(box);
      const edge = box.getBoundingClientRect();
      const isPast = right > edge.right + 1 || left < edge.left - 1;
      if (cuts(of.overflowX) && isPast && of.textOverflow !== "ellipsis") found.push(`cut off: ${words(element)}`);
      isDone = scrolls(of.overflowX) || (cuts(of.overflowX) && isPast);
    }
    if (!isDone && (right > innerWidth + 1 || left < -1)) found.push(`outside: ${words(element)}`);
  }
  for (const box of all(".react-flow__node > div")) {
    if (box.scrollHeight > box.clientHeight + 1) found.push(`higher than its box: ${words(box)}`);
  }
  return found;
}

/** Opens the tables of all charts; what a chart lacks, and the names of them all. */
async function figures() {
  const [found, titles] = [[], []];
  for (const figure of document.querySelectorAll("figure")) {
    const title = figure.querySelector("h3")?.textContent ?? "";
    titles.push(title);
    if (!/\d/.test(figure.querySelector("figcaption")?.textContent ?? "")) found.push(`'${title}': no caption made from its numbers`);
    if (figure.querySelector("[role=img] svg") === null) found.push(`'${title}': nothing is drawn`);
    const button = figure.querySelector("button[aria-expanded]");
    if (button?.getAttribute("aria-expanded") === "false") button.click();
    await rest();
    if (figure.querySelector("table tbody tr") === null) found.push(`'${title}': no table of its numbers`);
  }
  const charts = [...document.querySelectorAll("div[role=img]")].filter((chart) => chart.closest("figure") === null);
  for (const chart of charts) found.push(`a chart without caption and table: ${chart.getAttribute("aria-label")}`);
  return { found, titles };
}

/** What axe finds in a part of the page, or in all of it; in other colours nothing else can have changed. */
async function judge(part, onlyColours) {
  const where = part === null ? document : one(part);
  const rules = onlyColours ? { runOnly: { type: "rule", values: ["color-contrast", "link-in-text-block"] } } : {};
  const { violations } = await window.axe.run(where, { resultTypes: ["violations"], preload: false, ...rules });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${id}: ${target} ${failureSummary.replaceAll(/\s+/g, " ")}`),
  );
}

/** Where the keyboard is, whether one sees that by an outline, and whether that is in sight. */
function stop() {
  const at = document.activeElement ?? document.body;
  let marked = null;
  for (let box = at, up = 0; box !== null && up < 5 && marked === null; box = box.parentElement, up += 1) {
    const { outlineStyle, outlineWidth } = getComputedStyle(box);
    if (outlineStyle !== "none" && Number.parseFloat(outlineWidth) >= 1) marked = box;
  }
  const { top, bottom, left, right } = (marked ?? at).getBoundingClientRect();
  const label = at.getAttribute("aria-label") ?? at.labels?.[0]?.textContent ?? at.textContent;
  return {
    kind: at.getAttribute("role") ?? (at.tagName === "INPUT" ? at.type : at.tagName.toLowerCase()),
    name: at.getAttribute("name") ?? "",
    words: label.trim(),
    marked: marked !== null,
    in_sight: bottom > 0 && top < innerHeight && right > 0 && left < innerWidth,
    focused: document.hasFocus(),
  };
}

window.tour = {
  rest,
  wait,
  reach,
  measure,
  figures,
  judge,
  stop,
  async wear(theme) {
    document.documentElement.dataset.theme = theme;
    await rest();
  },
  /** Brings a part of the page to its top; a panel with its tabs, which stand before it. */
  async show(part) {
    const found = one(part);
    const first = found.matches("[role=tabpanel]") ? found.previousElementSibling : found;
    (first ?? found).scrollIntoView({ block: "start", behavior: "instant" });
    await rest();
  },
};
