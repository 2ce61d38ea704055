// The pages work without this script. It makes them a part of Airflow's UI, and keeps them up to date.
"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  // Airflow's window, if the page is in a frame of its UI. Reading the document of another origin throws.
  let ui = null;
  try { if (window.parent !== window && window.parent.document) ui = window.parent; } catch { /* alone */ }
  root.classList.add("js");
  root.classList.toggle("framed", ui !== null);

  // Colors: those of the UI, in its mode. Without a UI, the style sheet follows the browser.
  const COLORS = ["bg", "bg-subtle", "bg-muted", "bg-emphasized", "fg", "fg-muted", "fg-info", "border", "border-emphasized",
    "brand-solid", "brand-contrast", "brand-fg", "brand-subtle", "brand-muted"];
  function takeColors() {
    const theirs = ui.document.documentElement;
    const dark = theirs.classList.contains("dark");
    root.classList.toggle("dark", dark);
    root.classList.toggle("light", !dark);
    const style = ui.getComputedStyle(theirs);
    for (const name of COLORS) {
      const value = style.getPropertyValue(`--chakra-colors-${name}`).trim();
      if (value) root.style.setProperty(`--${name}`, value); else root.style.removeProperty(`--${name}`);
    }
  }
  if (ui) {
    takeColors();
    new MutationObserver(takeColors).observe(ui.document.documentElement, { attributes: true, attributeFilter: ["class", "style"] });
  }

  // Times: in the UI's language and time zone. Ages count from the server's clock, because the browser's may be wrong.
  let skew = 0;
  let format = null;
  function words(seconds) {
    const minutes = Math.floor(Math.max(0, seconds) / 60);
    if (!minutes) return `${Math.floor(Math.max(0, seconds))} s`;
    if (minutes < 60) return `${minutes} min`;
    const hours = Math.floor(minutes / 60);
    const units = hours < 24 ? [[hours, "h"], [minutes % 60, "min"]] : [[Math.floor(hours / 24), "d"], [hours % 24, "h"]];
    return units.filter(([number]) => number).map((unit) => unit.join(" ")).join(" ");
  }
  function chooseFormat() {
    const language = (ui && ui.document.documentElement.lang) || undefined;
    const style = { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" };
    try {
      format = new Intl.DateTimeFormat(language, { ...style, timeZone: JSON.parse(ui.localStorage.getItem("timezone")) || undefined });
    } catch { format = new Intl.DateTimeFormat(undefined, style); }
  }
  function put(element, text) { if (element.textContent !== text) element.textContent = text; }
  function showTimes() {
    const now = Date.now() + skew;
    for (const element of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(element.dateTime);
      if (element.dataset.age === undefined) put(element, format.format(moment));
      else {
        put(element, words((now - moment) / 1000) + element.dataset.age);
        element.title = format.format(moment);
      }
    }
  }

  let forget;
  function say(text, stays = false) {
    put(byId("message"), text);
    clearTimeout(forget);
    if (!stays) forget = setTimeout(() => put(byId("message"), ""), 8000);
  }

  // Refresh: what is new is merged into the page, so that focus, scroll position, texts and pictures stay.
  const key = (node) => node.nodeType === 1 ? node.id || node.dataset.run || node.dataset.key || "" : "";
  const path = (address) => (address || "").split("?")[0];
  function merge(old, fresh) {
    if (old.isEqualNode(fresh) || old.dataset.keep !== undefined) return;
    if (old.classList.contains("lost")) {
      if (old.href !== fresh.href) old.replaceWith(fresh);
      return;
    }
    for (const { name, value } of [...fresh.attributes]) {
      // A picture with a new signature in its address is the same picture.
      const same = name === "src" && path(old.getAttribute(name)) === path(value);
      if (!same && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    // What the viewer has unfolded stays so.
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    if (old.nodeName === "TIME") return;
    const keyed = new Map([...old.children].filter(key).map((child) => [key(child), child]));
    let at = old.firstChild;
    const drop = () => { const gone = at; at = at.nextSibling; gone.remove(); };
    for (const want of [...fresh.childNodes]) {
      let have = key(want) ? keyed.get(key(want)) : null;
      // Moving a frame would load it again, so what is before it goes instead.
      if (have) while (at && at !== have && !key(at)) drop();
      if (!key(want) && at && !key(at) && at.nodeName === want.nodeName) have = at;
      if (!have) { old.insertBefore(want, at); continue; }
      if (have === at) at = at.nextSibling; else old.insertBefore(have, at);
      if (have.nodeType === 1) merge(have, want); else if (have.data !== want.data) have.data = want.data;
    }
    while (at) drop();
  }

  let timer, request, last = 0, tries = 0, shown = true, over = false, trouble = false;
  const visible = () => document.visibilityState === "visible" && shown;
  function period() {
    if (byId("content").querySelector("[data-loading]")) return Math.min(++tries, 10);
    return Number(byId("content").dataset.refresh);
  }
  function plan() {
    clearTimeout(timer);
    const seconds = over ? 0 : period();
    if (seconds && visible()) timer = setTimeout(refresh, Math.max(0, last + seconds * 1000 - Date.now()));
  }
  function adopt() {
    const state = byId("as-of").dataset;
    byId("content").dataset.refresh = state.refresh;
    skew = new Date(state.now) - Date.now();
    showTimes();
    markLive();
  }
  async function refresh() {
    clearTimeout(timer);
    if (request) request.abort();
    const mine = request = new AbortController();
    const limit = setTimeout(() => mine.abort(), 30000);
    try {
      const response = await fetch(location.href, { headers: { "X-BrowserAct-Panel": "fragment" }, signal: mine.signal });
      const text = await response.text();
      over = [401, 403, 404].includes(response.status);
      // The page of a 502 states why BrowserAct could not be read. After another 5xx, the last data stay.
      if (response.status === 401) say("You are logged out of Airflow. Log in again and reload the page.", true);
      else if (!response.ok && !over && response.status !== 502) throw new Error(response.status);
      else {
        const fresh = byId("content").cloneNode(false);
        fresh.append(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
        const before = byId("as-of").dataset.say;
        merge(byId("content"), fresh);
        adopt();
        if (trouble) say("");
        trouble = false;
        if (byId("as-of").dataset.say !== before) announce(byId("as-of").dataset.say);
      }
    } catch {
      // A newer request took over, or the page is hidden.
      if (mine !== request || !visible()) return;
      trouble = true;
      say("Airflow does not respond. You see the last data. The page tries again.", true);
    } finally {
      clearTimeout(limit);
      if (mine === request) { last = Date.now(); plan(); }
    }
  }
  function look() {
    if (visible()) plan();
    else { clearTimeout(timer); if (request) request.abort(); }
  }
  function announce(text) { put(byId("news"), text); }

  // What the viewer does.
  function open(address) {
    // The sandbox of the frame forbids new windows, so the UI's document opens them.
    const link = ui.document.createElement("a");
    Object.assign(link, { href: address, target: "_blank", rel: "noopener noreferrer" });
    ui.document.body.append(link);
    link.click();
    link.remove();
  }
  function go(address) {
    ui.history.pushState({}, "", address);
    ui.dispatchEvent(new ui.PopStateEvent("popstate", { state: {} }));
  }
  function markLive() {
    const button = byId("live-button");
    if (button) button.setAttribute("aria-expanded", String(Boolean(byId("live").firstChild)));
  }
  function toggleLive(address) {
    const frame = document.createElement("iframe");
    frame.className = "live";
    frame.title = "Live view of the browser";
    frame.referrerPolicy = "no-referrer";
    frame.setAttribute("sandbox", "allow-scripts allow-same-origin allow-forms");
    frame.src = address;
    byId("live").replaceChildren(...(byId("live").firstChild ? [] : [frame]));
    markLive();
  }
  async function copy(source) {
    try { await navigator.clipboard.writeText(source.textContent); } catch {
      getSelection().selectAllChildren(source);
      if (!document.execCommand("copy")) return say("Press Ctrl+C or \u2318C to copy the selected text.");
      getSelection().removeAllRanges();
    }
    say("Copied");
  }
  let zoomed = null;
  function zoom(link) {
    zoomed = link;
    byId("zoom-picture").src = link.href;
    byId("zoom-picture").alt = link.querySelector("img").alt;
    put(byId("zoom-text"), link.dataset.zoom);
    if (!byId("zoom").open) byId("zoom").showModal();
  }
  function turn(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const links = [...document.querySelectorAll("a[data-zoom]:not(.lost)")];
    const next = by && links[links.indexOf(zoomed) + by];
    if (next) zoom(next);
  }
  let stopping = null;
  function askToStop(button) {
    stopping = button;
    put(byId("stop-what"), button.dataset.what);
    byId("stop").returnValue = "";
    byId("stop").showModal();
  }
  async function stop() {
    if (byId("stop").returnValue !== "stop") return;
    const button = stopping;
    button.disabled = true;
    let text;
    try {
      const headers = { "Content-Type": "application/json", "X-BrowserAct-Panel": "1" };
      const response = await fetch(button.dataset.url, { method: "POST", headers, body: "{}" });
      const { outcome, error } = await response.json();
      text = { stopped: "The run was stopped.", ended: "The run had already ended." }[outcome] || error;
    } catch { text = "Airflow does not respond. It is not known whether the run was stopped. Check its status."; }
    button.disabled = false;
    say(text);
    refresh();
  }
  function click(event) {
    const on = (selector) => event.target.closest(selector);
    const apart = event.button === 1 || event.ctrlKey || event.metaKey || event.shiftKey;
    const plain = event.button === 0 && !apart;
    const link = on("a");
    const act = (does) => { event.preventDefault(); does(); };
    if (plain && on("[data-stop]")) act(() => askToStop(on("[data-stop]")));
    else if (plain && on("[data-copy]")) act(() => copy(byId(on("[data-copy]").dataset.copy)));
    else if (plain && on("[data-live]")) act(() => toggleLive(on("[data-live]").dataset.live));
    else if (plain && on("a[data-zoom]")) act(() => on(".lost") || zoom(link));
    else if (ui && plain && on("a[data-airflow]")) act(() => go(link.href));
    else if (ui && link && (apart || link.target)) act(() => open(link.href));
    else if (event.target.nodeName === "DIALOG") event.target.close("");
  }

  // Errors of pictures do not bubble.
  document.addEventListener("error", ({ target }) => {
    if (target.nodeName === "IMG" && target.closest(".picture")) target.closest(".picture").classList.add("lost");
  }, true);
  document.addEventListener("DOMContentLoaded", () => {
    chooseFormat();
    adopt();
    last = byId("content").querySelector("[data-loading]") ? 0 : Date.now();
    document.addEventListener("click", click);
    document.addEventListener("auxclick", click);
    document.addEventListener("change", ({ target }) => target.matches("[data-submit]") && target.form.submit());
    document.addEventListener("visibilitychange", look);
    byId("stop").addEventListener("close", stop);
    byId("zoom").addEventListener("keydown", turn);
    new IntersectionObserver((entries) => { shown = entries.at(-1).isIntersecting; look(); }).observe(root);
    setInterval(() => visible() && showTimes(), 1000);
  });
})();
