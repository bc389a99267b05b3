// Keeps a page up to date: sections that the server sends again are merged into the page.
// Without this script every page renders and every button works.
"use strict";

(() => {
  const TICK_LIMIT = 15_000;
  const HIDDEN_LIMIT = 10_000;
  const LONGEST_WAIT = 30_000;

  // ---- Merging -------------------------------------------------------------------------

  const keyOf = (node) =>
    node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "";

  // Makes `from` like `to` and keeps every node that stands for the same thing, and with it
  // focus, selection and scroll position.
  function merge(from, to) {
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    if (from.isEqualNode(to)) return;
    mergeAttributes(from, to);
    const typing = from === document.activeElement && from.matches("input, select, textarea");
    if (!typing) mergeChildren(from, to);
  }

  function mergeAttributes(from, to) {
    // What a person opened stays open.
    const kept = (name) => name === "open" && from.nodeName === "DETAILS";
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !kept(name)) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value && !kept(name)) from.setAttribute(name, value);
    }
  }

  function mergeChildren(from, to) {
    const wanted = [...to.childNodes];
    const keys = new Set(wanted.map(keyOf).filter(Boolean));
    const keyed = new Map();
    for (const child of [...from.childNodes]) {
      const key = keyOf(child);
      if (key && keys.has(key)) keyed.set(key, child);
      else if (key) child.remove();
    }
    let cursor = from.firstChild;
    for (const next of wanted) {
      const key = keyOf(next);
      let match = key ? keyed.get(key) : alike(cursor, next);
      if (match && match.nodeName !== next.nodeName) match = null;
      if (!match) {
        from.insertBefore(next, cursor);
        continue;
      }
      // Unkeyed nodes that were passed over have nothing left to stand for.
      while (!key && cursor !== match) cursor = drop(cursor);
      if (cursor === match) cursor = cursor.nextSibling;
      else from.insertBefore(match, cursor);
      merge(match, next);
    }
    while (cursor) cursor = drop(cursor);
  }

  function alike(cursor, wanted) {
    for (let node = cursor; node && !keyOf(node); node = node.nextSibling) {
      if (node.nodeName === wanted.nodeName) return node;
    }
    return null;
  }

  function drop(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  // ---- Sections ------------------------------------------------------------------------

  const waiting = new Map();
  const said = document.getElementById("said");

  function show(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    const next = template.content.querySelector("[data-live]");
    const section = next && document.getElementById(next.id);
    if (!section) return;
    if (isSelected(section)) {
      waiting.set(next.id, html);
      return;
    }
    waiting.delete(next.id);
    const focused = document.activeElement;
    merge(section, next);
    keepFocus(focused);
    if (section.dataset.title && section.dataset.title !== document.title) tellState(section);
    countAges();
  }

  // The state became another one: in the window's title, and aloud in a screen reader. The
  // sentence alone may change each second.
  function tellState(section) {
    document.title = section.dataset.title;
    said.textContent = section.querySelector(".lead").textContent;
  }

  function isSelected(section) {
    const selection = getSelection();
    return !selection.isCollapsed && selection.containsNode(section, true);
  }

  // A button may have become another one of the same id: Drain becomes Undrain.
  function keepFocus(focused) {
    if (focused === document.body || focused === document.activeElement) return;
    const heir = focused.isConnected ? focused : focused.id && document.getElementById(focused.id);
    if (heir) heir.focus({ preventScroll: true });
  }

  document.addEventListener("selectionchange", () => {
    if (waiting.size && getSelection().isCollapsed) [...waiting.values()].forEach(show);
  });

  // ---- Time ----------------------------------------------------------------------------

  // How far the server's clock is ahead of ours, in milliseconds.
  let ahead = 0;
  const now = () => Date.now() + ahead;
  const two = (number) => String(number).padStart(2, "0");

  // The rule of `text.rs`: two units, the larger first.
  function age(milliseconds) {
    const seconds = Math.max(0, Math.floor(milliseconds / 1000));
    const [days, hours] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3_600) % 24];
    const [minutes, rest] = [Math.floor(seconds / 60) % 60, seconds % 60];
    if (days) return `${days}d${two(hours)}h`;
    if (hours) return `${hours}h${two(minutes)}m`;
    if (minutes) return `${minutes}m${two(rest)}s`;
    return `${rest}s`;
  }

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function countAges() {
    for (const time of document.querySelectorAll("time[data-age]")) {
      setText(time, age(now() - Date.parse(time.dateTime)));
    }
  }

  // ---- The stream ----------------------------------------------------------------------

  const url = document.body.dataset.liveUrl;
  const banner = document.getElementById("banner");
  const clock = document.getElementById("clock");
  const word = document.getElementById("clock-word");
  const moment = clock && clock.querySelector("time");

  let source = null;
  let heard = Date.now();
  let opened = 0;
  let tries = 0;
  let retryAt = 0;
  let signedOut = false;
  let hiddenTimer = 0;

  function open() {
    retryAt = 0;
    opened = Date.now();
    source = new EventSource(url);
    source.addEventListener("frag", (event) => {
      alive();
      show(event.data);
    });
    source.addEventListener("tick", (event) => {
      ahead = Date.parse(event.data) - Date.now();
      alive();
      moment.dateTime = event.data;
      setText(moment, event.data.slice(11, 19) + "Z");
      countAges();
    });
    source.addEventListener("error", () => lost());
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  function alive() {
    heard = Date.now();
    tries = 0;
    setText(word, "Live");
    clock.classList.add("live");
    clock.classList.remove("late");
    banner.hidden = true;
  }

  // Opens again after 1, 2, 4 … 30 s, each 30 % more or less so that browsers spread out.
  function lost() {
    close();
    const wait = Math.min(1000 * 2 ** tries, LONGEST_WAIT) * (0.7 + 0.6 * Math.random());
    tries += 1;
    retryAt = Date.now() + wait;
    setText(word, "As of");
    clock.classList.remove("live");
    clock.classList.add("late");
    askWhy();
    tell();
  }

  // A stream says nothing about why it closed; the page itself does.
  async function askWhy() {
    try {
      const answer = await fetch(location.pathname, { redirect: "manual" });
      signedOut = answer.type === "opaqueredirect" || answer.status === 401;
      if (signedOut) tell();
    } catch {
      // The server is not there: the banner says so already.
    }
  }

  function tell() {
    const said = signedOut ? "Signed out." : "Not live.";
    if (banner.hidden || banner.firstChild.textContent !== said) {
      const state = document.createElement("strong");
      state.textContent = said;
      const rest = document.createElement(signedOut ? "a" : "span");
      if (signedOut) {
        rest.href = `/login?next=${location.pathname}`;
        rest.textContent = "Sign in again to see updates";
      } else {
        // A screen reader hears that the page is not live, not every second of the wait.
        rest.setAttribute("aria-hidden", "true");
      }
      banner.replaceChildren(state, rest);
      banner.hidden = false;
    }
    if (signedOut) return;
    const wait = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    const next = source ? "Trying again now." : `Trying again in ${wait} s.`;
    setText(banner.lastChild, `Last update ${age(Date.now() - heard)} ago. ${next}`);
  }

  function everySecond() {
    countAges();
    if (!url || signedOut) return;
    if (source && Date.now() - Math.max(heard, opened) > TICK_LIMIT) lost();
    else if (retryAt && Date.now() >= retryAt) open();
    if (!banner.hidden) tell();
  }

  // A page that nobody sees leaves its connection to one that somebody does.
  function visibility() {
    clearTimeout(hiddenTimer);
    if (document.hidden) {
      hiddenTimer = setTimeout(() => {
        close();
        retryAt = 0;
      }, HIDDEN_LIMIT);
    } else if (!source && !signedOut) {
      open();
    }
  }

  if (url) {
    open();
    document.addEventListener("visibilitychange", visibility);
    addEventListener("pagehide", close);
    addEventListener("pageshow", (event) => event.persisted && open());
  }
  setInterval(everySecond, 1000);
})();
