"use strict";

const REFRESH = 5000; // milliseconds between two looks
const PATIENCE = 10000; // milliseconds

// What the server last said of each part: a part is exchanged only when that has changed.
const served = new WeakMap();

// A person who reads, copies or tabs through a part is not disturbed: it is left as it is.
function isInUse(part) {
  const selection = document.getSelection();
  return part.contains(document.activeElement) || (selection && !selection.isCollapsed && part.contains(selection.anchorNode));
}

let updatedAt = new Date();

// What stands here may be wrong by now: without this line a page of long ago would go on saying that all is well.
function setStale(why) {
  document.body.classList.toggle("stale", Boolean(why));
  const since = updatedAt.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  document.getElementById("stale").textContent = why ? `Not updated since ${since}: the receiver ${why}.` : "";
}

async function refresh() {
  if (document.hidden) return;
  let answer, page;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(PATIENCE) });
    page = await answer.text();
  } catch {
    setStale("does not answer");
    return;
  }
  if (answer.redirected) {
    // The session has ended. Not a reload: it would post a form again whose answer this page is.
    location.assign(answer.url);
    return;
  }
  if (!answer.ok) {
    setStale(`answers ${answer.status}`);
    return;
  }
  updatedAt = new Date();
  setStale("");
  update(new DOMParser().parseFromString(page, "text/html"));
}

// One look at a time: a slow answer never overtakes a newer one.
async function keepLooking() {
  try {
    await refresh();
  } finally {
    setTimeout(keepLooking, REFRESH);
  }
}

function update(fresh) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const twin = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (!twin || isInUse(part) || twin.innerHTML === served.get(part)) continue;
    const open = [...part.querySelectorAll("details")].map((details) => details.open);
    part.className = twin.className;
    served.set(part, twin.innerHTML);
    part.innerHTML = twin.innerHTML;
    part.querySelectorAll("details").forEach((details, place) => { details.open = open[place]; });
    prepare(part);
  }
}

const CLOCK = { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const FORMS = {
  exact: new Intl.DateTimeFormat("en-GB", { ...CLOCK, year: "numeric" }),
  brief: new Intl.DateTimeFormat("en-GB", CLOCK),
};
const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

// Times are served in UTC, and written here as the clock on this wall has them. UTC stays in the title.
function localise(part) {
  for (const [name, form] of Object.entries(FORMS)) {
    for (const time of part.querySelectorAll(`time[data-${name}]`)) {
      time.textContent = form.format(new Date(time.dateTime)).replace(" at ", ", ");
    }
  }
}

// A row leads where its first link does. Whoever selects a text in it, or means another link, is left alone.
function follow(event) {
  const row = event.target.closest("tr[data-row]");
  if (!row || event.target.closest("a, button, input, summary") || !document.getSelection().isCollapsed) return;
  const link = row.querySelector("a");
  if (event.ctrlKey || event.metaKey) open(link.href, "_blank", "noopener");
  else link.click();
}

function prepare(part) {
  localise(part);
  for (const button of part.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard; // there is none on plain http, except on this machine
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      const label = button.firstChild;
      label.textContent = "Copied";
      setTimeout(() => { label.textContent = "Copy"; }, 1500);
    });
  }
  for (const button of part.querySelectorAll("[data-print]")) {
    button.hidden = false;
    button.addEventListener("click", () => print());
  }
  for (const form of part.querySelectorAll("form[data-confirm]")) {
    form.addEventListener("submit", (event) => {
      if (!confirm(form.dataset.confirm)) event.preventDefault();
    });
  }
  part.dispatchEvent(new CustomEvent("prepared", { bubbles: true }));
}

// A proof holds every request, also those that were folded away.
addEventListener("beforeprint", () => {
  document.querySelectorAll(".life details").forEach((details) => { details.open = true; });
});

document.addEventListener("DOMContentLoaded", () => {
  prepare(document);
  document.addEventListener("click", follow);
  document.getElementById("zone").textContent = `Times are those of ${ZONE}; point at one for UTC.`;
  if (document.querySelector("[data-live]")) setTimeout(keepLooking, REFRESH);
});
