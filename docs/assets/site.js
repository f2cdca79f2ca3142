/* What the theme leaves without a name, or out of a keyboard's reach. It adds both after the page has loaded. */

/* Wide tables and pictures scroll sideways. */
const WIDE = ".md-typeset__scrollwrap:not([tabindex]), p:not([tabindex]):has(> img[src$='timeline.svg'])";

const numbers = {};

function name(element, what) {
  numbers[what] = (numbers[what] ?? 0) + 1;
  element.setAttribute("aria-label", `${what} ${numbers[what]}`);
}

function mend() {
  for (const wide of document.querySelectorAll(WIDE)) {
    wide.tabIndex = 0;
    wide.setAttribute("role", "region");
    name(wide, wide.matches("p") ? "Picture" : "Table");
  }
  for (const buttons of document.querySelectorAll(".md-code__nav:not([aria-label])")) {
    name(buttons, "Buttons of example");
  }
}
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
mend();
