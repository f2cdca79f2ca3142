/* Wide tables and pictures scroll sideways: let a keyboard reach them. The theme wraps tables after the page has loaded. */
const WIDE = ".md-typeset__scrollwrap:not([tabindex]), p:not([tabindex]):has(> img[src$='timeline.svg'])";

function reach() {
  for (const wide of document.querySelectorAll(WIDE)) {
    wide.tabIndex = 0;
    wide.setAttribute("role", "region");
    wide.setAttribute("aria-label", wide.matches("p") ? "Picture" : "Table");
  }
}
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
reach();
