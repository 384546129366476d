// What a reader of `page`, a window that shows a report, would complain about, and what there is to see.
function measure(page) {
  const root = page.document.documentElement;
  const colour = (element, name) => page.getComputedStyle(element)[name];
  const word = (element) => element.textContent.trim().slice(0, 60);
  const complaints = [];

  const overlap = (a, b) =>
    Math.min(Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));

  const figures = [...page.document.querySelectorAll("figure svg")].map((svg) => {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].filter((text) => word(text));
    const boxes = texts.map((text) => text.getBoundingClientRect());
    boxes.forEach((box, i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        complaints.push(`${svg.ariaLabel}: cut off: ${word(texts[i])}`);
      for (let j = 0; j < i; j++)
        if (overlap(box, boxes[j]) > 1.5) complaints.push(`${svg.ariaLabel}: ${word(texts[i])} over ${word(texts[j])}`);
    });
    const sizes = texts.map((text) => parseFloat(colour(text, "fontSize")) * frame.width / svg.viewBox.baseVal.width);
    return { small: !!svg.closest(".maps"), width: frame.width, height: frame.height, texts: texts.length, smallest: Math.min(...sizes) };
  });

  for (const element of page.document.querySelectorAll("body *")) {
    if (element.closest("svg")) continue;
    const box = element.getBoundingClientRect();
    if (box.width && (box.right > root.clientWidth + 1 || box.left < -1))
      complaints.push(`beyond the page: <${element.localName}> ${word(element)}`);
    if (element.scrollWidth > element.clientWidth + 1 && colour(element, "display") !== "inline")
      complaints.push(`wider than its place: <${element.localName}> ${word(element)}`);
  }
  for (const cell of page.document.querySelectorAll(".numbers tbody tr:not(.why) > :not([scope=rowgroup])")) {
    const range = page.document.createRange();
    range.selectNodeContents(cell);
    const box = range.getBoundingClientRect();
    if (box.height > 1.9 * parseFloat(colour(cell, "fontSize"))) complaints.push(`wrapped: ${word(cell)}`);
  }

  const luminance = (css) => {
    const linear = css.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (element) => {
    const own = colour(element, "backgroundColor");
    return own !== "rgba(0, 0, 0, 0)" || !element.parentElement ? own : behind(element.parentElement);
  };
  for (const element of page.document.querySelectorAll("body *:not(style)")) {
    if (element.closest("svg") || ![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const [less, more] = [colour(element, "color"), behind(element)].map(luminance).sort((a, b) => a - b);
    if ((more + 0.05) / (less + 0.05) < 4.5) complaints.push(`too faint: ${word(element)}`);
  }
  return {
    width: root.clientWidth,
    scroll_width: root.scrollWidth,
    dark: page.matchMedia("(prefers-color-scheme: dark)").matches,
    background: colour(page.document.body, "backgroundColor"),
    text: colour(page.document.body, "color"),
    figure_text: colour(page.document.querySelector("figure svg text"), "fill"),
    complaints,
    figures,
  };
}
