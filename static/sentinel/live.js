"use strict";
// Follows the log. Rows come rendered and escaped by the server; the page keeps a bounded number of them.
(() => {
  const table = document.getElementById("live");
  if (!table || !window.EventSource) return;
  const body = table.tBodies[0], state = document.getElementById("live-state"), count = document.getElementById("live-count");
  const empty = document.getElementById("live-empty"), pause = document.getElementById("live-pause");
  const MOST = 500;
  let total = 0, paused = false, waiting = [];
  const say = (name, text) => { state.dataset.state = name; state.textContent = text; };
  const show = (event) => {
    if (document.getElementById("e" + event.id)) return;
    const holder = document.createElement("template");
    holder.innerHTML = event.html;
    body.prepend(holder.content);
    while (body.rows.length > MOST) body.deleteRow(-1);
    empty.hidden = true;
  };
  const tell = () => { count.textContent = `${total} since this page was opened` + (waiting.length ? `, ${waiting.length} waiting` : ""); };
  const source = new EventSource(table.dataset.source);
  source.onopen = () => say(paused ? "paused" : "on", paused ? "Paused" : "Following");
  source.onerror = () => say("off", source.readyState === EventSource.CLOSED ? "Ended" : "Connection lost, trying again…");
  source.addEventListener("trouble", (message) => say("off", message.data));
  source.addEventListener("ended", (message) => { say("off", message.data); source.close(); });
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    total += 1;
    if (paused) { waiting.push(event); if (waiting.length > MOST) waiting.shift(); } else { show(event); say("on", "Following"); }
    tell();
  };
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Resume" : "Pause";
    if (!paused) { waiting.forEach(show); waiting = []; }
    say(paused ? "paused" : "on", paused ? "Paused" : "Following");
    tell();
  });
  addEventListener("pagehide", () => source.close());
})();
