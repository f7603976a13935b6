// Live pages: what cannot be said in HTML.
"use strict";

// A session that has ended answers with the login page: show it as a page, not inside of this one.
document.addEventListener("htmx:beforeSwap", (event) => {
  const answered = new URL(event.detail.xhr.responseURL);
  if (answered.pathname !== new URL(event.detail.pathInfo.finalRequestPath, location).pathname) {
    event.detail.shouldSwap = false;
    location.reload();
  }
});

const stale = (isStale) => {
  for (const hint of document.querySelectorAll(".fl-stale")) {
    hint.hidden = !isStale;
  }
};
document.addEventListener("htmx:sendError", () => stale(true));
document.addEventListener("htmx:responseError", () => stale(true));
document.addEventListener("htmx:afterSwap", () => stale(false));
