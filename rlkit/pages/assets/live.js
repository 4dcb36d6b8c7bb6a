// A page that is served while runs train: asks how far they are, and takes over what is new.
// Scroll position, switches and filters stay: only data and elements marked data-live are replaced.
"use strict";
(() => {
  const { data, el, set, text } = rlkit;
  const SECONDS = 3;
  const sign = el("span", "soft live", "live");
  let version = null;

  const get = async (address) => {
    const answer = await fetch(address, { cache: "no-store" });
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    return answer;
  };

  const names = (given) => JSON.stringify(given.questions?.map((q) => q.panels.map((p) => p.name)) ?? given.plots?.map((p) => p.name));

  /** Replace an element by its newer self; what was unfolded stays so. */
  function replace(old, fresh) {
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    const now = document.importNode(fresh, true);
    now.querySelectorAll("details").forEach((each, i) => {
      if (i in open) each.open = open[i];
    });
    old.replaceWith(now);
  }

  /** Take over the data and the marked elements of the page as it would be loaded now. */
  async function refresh() {
    const page = await (await get(location.pathname)).text();
    const fresh = new DOMParser().parseFromString(page, "text/html");
    const news = JSON.parse(fresh.getElementById("data").textContent);
    if (names(news) !== names(data)) {
      location.reload(); // there are new plots; the browser keeps the scroll position
      return;
    }
    Object.assign(data, news);
    for (const old of document.querySelectorAll("[data-live]")) {
      const found = fresh.querySelector(`[data-live="${CSS.escape(old.dataset.live)}"]`);
      if (found) replace(old, found);
    }
    set("data");
  }

  async function poll() {
    if (!document.hidden) {
      try {
        const now = await (await get("state.json")).json();
        if (now.version !== version) await refresh(); // at first too: the page may be older
        version = now.version;
        text(sign, `live, ${now.words}`);
      } catch {
        text(sign, "not live: the server does not answer");
      }
    }
    setTimeout(poll, 1000 * SECONDS);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("switches")?.append(sign);
    poll();
  });
})();
