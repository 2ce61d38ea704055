// The pages work without this script. It makes them a part of Airflow's UI, and keeps them up to date.
"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };

  // Airflow's window, if the page is in a frame of its UI. Reading the document of another origin throws.
  let ui = null;
  try { if (window.parent !== window && window.parent.document) ui = window.parent; } catch { /* alone */ }
  root.classList.add("js");
  root.classList.toggle("framed", ui !== null);

  // Colors: those of the UI, in its mode. Without a UI, the style sheet follows the browser.
  const rules = document.querySelector("link[rel=stylesheet]").sheet?.cssRules;
  const names = [...rules?.[0]?.style ?? []].filter((name) => name.startsWith("--"));
  function takeColors() {
    const theirs = ui.document.documentElement;
    const dark = theirs.classList.contains("dark");
    root.classList.toggle("dark", dark);
    root.classList.toggle("light", !dark);
    const style = ui.getComputedStyle(theirs);
    // What the UI does not have keeps the color of the style sheet: an empty value removes the property.
    for (const name of names) root.style.setProperty(name, style.getPropertyValue(`--chakra-colors-${name.slice(2)}`).trim());
  }
  if (ui) {
    takeColors();
    new MutationObserver(takeColors).observe(ui.document.documentElement, { attributes: true, attributeFilter: ["class", "style"] });
  }

  // Times: in the UI's language and time zone. Ages count from the server's clock, because the browser's may be wrong.
  let skew = 0;
  let format = null;
  function chooseFormat() {
    const style = { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" };
    try {
      const timeZone = JSON.parse(ui.localStorage.getItem("timezone")) || undefined;
      format = new Intl.DateTimeFormat(ui.document.documentElement.lang || undefined, { ...style, timeZone });
    } catch { format = new Intl.DateTimeFormat(undefined, style); }
  }
  function words(seconds) {
    const minutes = Math.floor(seconds / 60);
    if (minutes < 1) return `${Math.max(0, Math.floor(seconds))} s`;
    const [hours, days] = [Math.floor(minutes / 60), Math.floor(minutes / 1440)];
    const units = days ? [[days, "d"], [hours % 24, "h"]] : [[hours, "h"], [minutes % 60, "min"]];
    return units.filter(([number]) => number).map((unit) => unit.join(" ")).join(" ");
  }
  function showTimes() {
    for (const element of document.querySelectorAll("time")) {
      const moment = new Date(element.dateTime);
      const { age } = element.dataset;
      put(element, age === undefined ? format.format(moment) : words((Date.now() + skew - moment) / 1000) + age);
      if (age !== undefined) element.title = format.format(moment);
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
      if (old.querySelector("img").src !== fresh.querySelector("img").src) old.replaceWith(fresh);
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
  const loading = () => byId("content").querySelector("[data-loading]");
  function plan() {
    clearTimeout(timer);
    const seconds = over ? 0 : loading() ? Math.min(++tries, 10) : Number(byId("as-of").dataset.refresh);
    if (seconds && visible()) timer = setTimeout(refresh, Math.max(0, last + seconds * 1000 - Date.now()));
  }
  function adopt() {
    skew = new Date(byId("as-of").dataset.now) - Date.now();
    showTimes();
    for (const button of document.querySelectorAll("[data-stop]")) button.disabled = sent.has(button.dataset.url);
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
        merge(byId("content"), fresh);
        adopt();
        if (trouble) say("");
        trouble = false;
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
    if (visible()) return plan();
    clearTimeout(timer);
    if (request) request.abort();
  }

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
  function showLive({ target }) {
    if (!target.dataset.live) return;
    const frame = document.createElement("iframe");
    Object.assign(frame, { title: "Live view of the browser", referrerPolicy: "no-referrer", src: target.dataset.live });
    frame.setAttribute("sandbox", "allow-scripts allow-same-origin allow-forms");
    target.querySelector("iframe")?.remove();
    if (target.open) target.append(frame);
  }
  async function copy(source) {
    try { await navigator.clipboard.writeText(source.textContent); } catch {
      getSelection().selectAllChildren(source);
      if (!document.execCommand("copy")) return say("Press Ctrl+C or \u2318C to copy the selected text.");
      getSelection().removeAllRanges();
    }
    say("Copied");
  }
  let asked = null;
  const sent = new Set();
  function askToStop(button) {
    asked = button.dataset.url;
    put(byId("stop-what"), button.dataset.what);
    byId("stop").returnValue = "";
    byId("stop").showModal();
  }
  async function stop() {
    if (byId("stop").returnValue !== "stop") return;
    const address = asked;
    sent.add(address);
    adopt();
    try {
      const headers = { "Content-Type": "application/json", "X-BrowserAct-Panel": "1" };
      const { outcome, error } = await (await fetch(address, { method: "POST", headers, body: "{}" })).json();
      say({ stopped: "The run was stopped.", ended: "The run had already ended." }[outcome] || error);
    } catch { say("Airflow does not respond. It is not known whether the run was stopped. Check its status."); }
    sent.delete(address);
    adopt();
    refresh();
  }
  function click(event) {
    const { target, button } = event;
    const on = (selector) => target.closest(selector);
    const apart = button === 1 || event.ctrlKey || event.metaKey || event.shiftKey;
    const act = (does) => { event.preventDefault(); does(); };
    const link = on("a");
    if (link && button < 2) {
      if (ui && (apart || link.target)) act(() => open(link.href));
      else if (ui && on("[data-airflow]")) act(() => go(link.href));
    } else if (button) return;
    else if (on("[data-stop]")) askToStop(on("[data-stop]"));
    else if (on("[data-copy]")) copy(byId(on("[data-copy]").dataset.copy));
    else if (target.nodeName === "DIALOG") target.close("");
  }

  // Errors of pictures do not bubble, and neither do toggles.
  document.addEventListener("error", ({ target }) => target.closest(".picture")?.classList.add("lost"), true);
  document.addEventListener("toggle", showLive, true);
  document.addEventListener("DOMContentLoaded", () => {
    chooseFormat();
    adopt();
    last = loading() ? 0 : Date.now();
    document.addEventListener("click", click);
    document.addEventListener("auxclick", click);
    document.addEventListener("change", ({ target }) => target.matches("[data-submit]") && target.form.submit());
    document.addEventListener("visibilitychange", look);
    byId("stop").addEventListener("close", stop);
    new IntersectionObserver((entries) => { shown = entries.at(-1).isIntersecting; look(); }).observe(root);
    setInterval(() => visible() && showTimes(), 1000);
  });
})();
