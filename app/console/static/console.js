// Keeps the parts of a page marked data-refresh up to date. Without it pages work, and are as old as they are.
"use strict";

(() => {
  const parts = () => document.querySelectorAll("[data-refresh]");
  const control = document.getElementById("refresh");
  if (!control || !parts().length) return;
  const said = document.getElementById("refreshed");
  const every = Number(control.dataset.seconds) * 1000;
  let paused = false;

  // Whoever fills in a form, reads with a screen reader's cursor in a part, or has marked text keeps it as it is.
  const busy = (part) => {
    const marked = document.getSelection();
    return part.contains(document.activeElement) || (marked && !marked.isCollapsed && part.contains(marked.anchorNode));
  };
  const inForm = () => document.activeElement && document.activeElement.closest("main form");

  async function refresh() {
    if (paused || document.hidden || inForm()) return;
    let page;
    try {
      const answer = await fetch(location.pathname, { headers: { accept: "text/html" }, redirect: "error" });
      page = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      said.textContent = "could not be refreshed; trying again";
      return;
    }
    for (const part of parts()) {
      const fresh = page.getElementById(part.id);
      if (!fresh) { location.reload(); return; }
      if (busy(part) || fresh.innerHTML === part.dataset.seen) continue;
      const open = [...part.querySelectorAll("details[open]")].map((one) => one.id);
      part.dataset.seen = fresh.innerHTML;
      part.replaceChildren(...fresh.childNodes);
      for (const id of open) if (id) document.getElementById(id)?.setAttribute("open", "");
    }
    said.textContent = "as of " + new Date().toISOString().slice(11, 19) + " UTC";
  }

  for (const part of parts()) part.dataset.seen = part.innerHTML;
  control.hidden = false;
  control.addEventListener("click", () => {
    paused = !paused;
    control.setAttribute("aria-pressed", String(paused));
    said.textContent = paused ? "paused" : "";
    if (!paused) refresh();
  });
  setInterval(refresh, every);
})();
