// What every page of rlkit shares: its data, text, parts loaded later, switches and sections.
// Nothing here parses HTML: what a model or a user wrote only ever becomes a text node.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

  // ---- text

  /** Characters that hide, or that turn the direction of others, spelled out. */
  const visible = (value) =>
    String(value).replace(HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

  /** Put a text, and nothing but text, into an element; returns the element. */
  function text(element, value) {
    element.textContent = visible(value);
    return element;
  }

  /** An element with a class and children: elements as they are, anything else as text. */
  function el(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    for (const child of children)
      if (child !== null && child !== undefined)
        element.append(child instanceof Node ? child : visible(child));
    return element;
  }

  /** A long text, cut, with a button that shows more of it. */
  function long(value, limit = 2000) {
    const whole = String(value);
    const span = text(el("span", "model-text"), whole.slice(0, limit));
    if (whole.length <= limit) return span;
    const more = el("button", "more", `show all ${whole.length.toLocaleString("en")} characters`);
    more.type = "button";
    more.addEventListener("click", () => {
      text(span, whole);
      more.remove();
    });
    return el("span", "", span, " ", more);
  }

  /** Four significant digits, with thousands separated; exponents only for what is very small or large. */
  function number(value) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e12)) return value.toExponential(2);
    if (size >= 1000) return Math.round(value).toLocaleString("en");
    return String(Number(value.toPrecision(4)));
  }

  // ---- parts of the data that lie in files beside the page

  const arrived = new Map();
  const asked = new Map();

  /** Called by report/<name>.js. */
  const put = (name, payload) => void arrived.set(name, payload);

  /** The payload of <folder>/<name>.js: a script, since a page opened from a file cannot fetch. */
  function load(name, folder = data.folder ?? "report") {
    if (!/^[\w.-]+$/.test(name)) return Promise.reject(new Error(`${visible(name)} is not the name of a part`));
    if (!asked.has(name)) asked.set(name, ask(name, `${folder}/${name}.js`));
    return asked.get(name);
  }

  function ask(name, path) {
    return new Promise((resolve, reject) => {
      const fail = (why) => {
        asked.delete(name);
        reject(new Error(`${path} ${why}`));
      };
      const script = el("script");
      script.src = path;
      script.addEventListener("load", () => {
        script.remove();
        if (arrived.has(name)) resolve(arrived.get(name));
        else fail("does not hold what this page looks for; write the report anew");
      });
      script.addEventListener("error", () => {
        script.remove();
        fail("cannot be read: the folder has to lie beside this page");
      });
      document.head.append(script);
    });
  }

  // ---- switches: what the reader chose, and who wants to know

  const state = { x: "step", smooth: 0 };
  const listeners = [];

  /** Call `then(name)` whenever a switch ("x", "smooth", "theme") is turned. */
  const on = (then) => void listeners.push(then);

  function set(name, value) {
    state[name] = value;
    for (const then of listeners) then(name);
  }

  function remembered(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null; // storage is forbidden for some pages opened from files
    }
  }

  function remember(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      // the choice then holds for this page alone
    }
  }

  function themeButton() {
    const order = ["auto", "light", "dark"];
    let theme = order.includes(remembered("rlkit-theme")) ? remembered("rlkit-theme") : "auto";
    const button = el("button", "theme");
    button.type = "button";
    const apply = () => {
      if (theme === "auto") delete root.dataset.theme;
      else root.dataset.theme = theme;
      text(button, { auto: "◐ auto", light: "○ light", dark: "● dark" }[theme]);
      button.setAttribute("aria-label", `Colors: ${theme}`);
    };
    button.addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      remember("rlkit-theme", theme);
      apply();
      set("theme", theme);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => set("theme", theme));
    apply();
    return button;
  }

  /** The value of a color of rlkit.css in the present theme. */
  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

  // ---- sections

  const sections = [];

  /** Add a section: {id, title, order, render(body)}; lower orders come first. */
  const section = (given) => void sections.push(given);

  function build() {
    const main = document.querySelector("main") ?? document.body.appendChild(el("main"));
    const bar = document.getElementById("switches");
    if (bar) bar.append(themeButton());
    else document.body.prepend(el("div", "corner", themeButton()));
    const index = document.getElementById("index");
    for (const { id, title, render } of sections.sort((a, b) => (a.order ?? 50) - (b.order ?? 50))) {
      const body = el("div", "section-body");
      const whole = el("section", "", el("h2", "", title), body);
      whole.id = id;
      main.append(whole);
      try {
        render(body);
      } catch (error) {
        console.error(error);
        body.append(el("p", "failed", `This section cannot be shown: ${error.message}`));
      }
      if (index) {
        const link = el("a", "", title);
        link.href = `#${id}`;
        index.append(link);
      }
    }
    if (location.hash.length > 1) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }

  window.rlkit = { data, put, load, text, visible, el, long, number, color, state, set, on, section };
  document.addEventListener("DOMContentLoaded", build);
})();
