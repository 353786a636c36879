// What of the page's text is cut off, spills out of its box or lies outside the window; an empty list where all is well.
const found = [];
const words = (element) => `'${element.textContent.trim().slice(0, 40)}' (${element.tagName.toLowerCase()})`;
const page = document.scrollingElement;
if (page.scrollWidth > innerWidth + 1) found.push(`the window scrolls sideways: ${page.scrollWidth} of ${innerWidth}`);
// A narrow window is one long page; in a wide one only the middle scrolls.
if (innerWidth > 760 && page.scrollHeight > innerHeight + 1) {
  found.push(`the window itself scrolls: ${page.scrollHeight} of ${innerHeight}`);
}
const scrolls = (style) => ["auto", "scroll", "hidden", "clip"].includes(style.overflowX);
for (const element of document.querySelectorAll("body *")) {
  const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== "");
  if (!hasText || element.getClientRects().length === 0 || element.closest(".hidden, svg, .react-flow")) continue;
  const style = getComputedStyle(element);
  if (style.visibility === "hidden" || style.opacity === "0") continue;
  if (style.display !== "inline" && element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1) {
    const isEnded = style.textOverflow === "ellipsis";
    if (!isEnded && !["auto", "scroll"].includes(style.overflowX)) found.push(`does not fit: ${words(element)}`);
  }
  let box = element.parentElement;
  while (box !== null && !scrolls(getComputedStyle(box))) box = box.parentElement;
  const { right, left } = element.getBoundingClientRect();
  const outside = right > innerWidth + 1 || left < -1;
  if (outside && (box === null || box === document.body || box === page)) found.push(`outside: ${words(element)}`);
}
return found;
