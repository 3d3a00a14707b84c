"use strict";
// Small conveniences; every page works without them.
(() => {
  // Copy buttons appear only where they work.
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.dataset.copy || document.getElementById(button.dataset.copyFrom)?.textContent || "";
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        const area = document.createElement("textarea");
        area.value = text;
        area.className = "visually-hidden";
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      const label = button.querySelector("span");
      const before = label.textContent;
      label.textContent = "Copied";
      setTimeout(() => { label.textContent = before; }, 1500);
    });
  }
  // Menus close when something else is clicked or Escape is pressed.
  const menus = document.querySelectorAll("details.menu");
  document.addEventListener("click", (event) => {
    for (const menu of menus) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const menu of menus) if (menu.open) { menu.open = false; menu.querySelector("summary").focus(); }
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      const search = document.querySelector(".topsearch input");
      if (search && search.offsetParent) { event.preventDefault(); search.focus(); }
    }
  });
  // A part of a page that follows work on the server is fetched anew until it says that the work is over.
  const follow = async () => {
    const part = document.querySelector("[data-follow]");
    if (!part) return;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
      if (answer.ok && fresh) part.replaceWith(fresh);
    } catch { /* the server restarts; the next look finds it */ }
    setTimeout(follow, 1500);
  };
  setTimeout(follow, 1500);
  // "Select all" boxes of tables with actions.
  for (const box of document.querySelectorAll("[data-select-all]")) {
    box.hidden = false;
    box.addEventListener("change", () => {
      for (const other of box.closest("form").querySelectorAll(`input[name="${box.dataset.selectAll}"]`)) other.checked = box.checked;
    });
  }
})();
