// Flask-Pusher: keeps elements of a page up to date. Its documentation, "The page", says how.
// An element with data-pusher listens to channels: their events are dispatched on it as DOM events,
// and one with data-pusher-src is filled anew with what that URL answers.
(() => {
  "use strict";
  const ATTRIBUTES = ["", "-user", "-src", "-on", "-members", "-count", "-spread"].map((end) => "data-pusher" + end);
  const LIVE = `:is(${["", "-user", "-src", "-members", "-count"].map((end) => `[data-pusher${end}]`)}):not([data-pusher-off] *)`;
  const USER = "#user"; // stands for the channel of the signed-in user; none can be called so
  const MOMENT = 50; // ms, until htmx and its like have processed what came

  const loaded = Symbol.for("flask-pusher");
  if (document[loaded]) return;
  document[loaded] = true;
  const { key, options } = document.querySelector("script[data-key][data-options]")?.dataset ?? {};

  const places = new Map(); // element: what it listens to, and shows
  const channels = new Map(); // name: who listens to it, and how it is
  const sources = new Map(); // URL: when it is fetched
  const said = new Set();
  let pusher, user, polling;
  let isClosed = false; // by the service, for good

  function say(text) {
    if (!said.has(text)) console.warn("Flask-Pusher: " + text);
    said.add(text);
  }

  function tell({ element }, name, detail = null) {
    element.dispatchEvent(new CustomEvent(name, { detail }));
  }

  function mark({ element, channels, isRefused }) {
    const isLive = channels.length && channels.every((one) => one.isLive);
    const state = isRefused || channels.some((one) => one.isRefused) ? "refused" : isLive ? "live" : "connecting";
    if (element.dataset.pusherState !== state) element.dataset.pusherState = state;
  }

  // -- What the page asks for. It is looked at as a whole, after each batch of changes --

  function look() {
    if (document.documentElement.hasAttribute("data-turbo-preview")) return;
    const found = new Set(document.querySelectorAll(LIVE));
    if (found.size && !pusher) connect();
    if (pusher) follow([...found].map((element) => element.dataset.pusherUser).find(Boolean) ?? null);
    for (const element of found) {
      const attributes = JSON.stringify(ATTRIBUTES.map((name) => element.getAttribute(name)));
      const place = places.get(element);
      if (place?.attributes === attributes) mark(place);
      else begin(element, attributes);
    }
    for (const element of places.keys()) if (!found.has(element)) end(element);
    // Only now, for what a swap took out and put in again has not left.
    for (const one of channels.values()) if (!one.places.size) part(one);
    for (const url of sources.keys()) if (!showing(url).length) drop(url);
  }

  function follow(now) {
    if (user !== undefined && user !== now) {
      pusher.user.signin_requested = false;
      pusher.disconnect(); // with all that the last user was granted
      pusher.connect();
    }
    user = now;
  }

  function begin(element, attributes) {
    end(element);
    const { pusher: listed, pusherUser, pusherMembers, pusherCount, pusherSrc, pusherSpread = 5 } = element.dataset;
    const names = new Set([listed, pusherMembers, pusherCount].join(" ").split(/\s+/).filter(Boolean));
    if (pusherUser) names.add(USER);
    const place = { element, attributes, channels: [], spread: (parseFloat(pusherSpread) || 0) * 1000 };
    if (pusherSrc !== undefined) {
      if (!names.size) say(`data-pusher-src="${pusherSrc}" needs data-pusher, a channel that tells of changes.`);
      else if (!pusherSrc && !element.id) say("An empty data-pusher-src needs an id, to find the element in the page by.");
      else place.url = new URL(pusherSrc || location.href, document.baseURI).href.split("#")[0];
    }
    places.set(element, place);
    if (pusherMembers) showMembers(element, {});
    for (const name of names) join(place, name);
    mark(place);
  }

  function end(element) {
    const place = places.get(element);
    if (!place) return;
    clearTimeout(place.timer);
    places.delete(element);
    for (const one of place.channels) one.places.delete(place);
  }

  // -- The connection, and channels --

  function connect() {
    poll(10);
    // <div id="Pusher"> is window.Pusher, too.
    if (typeof window.Pusher !== "function") {
      if (document.readyState === "complete") say("pusher-js is missing. Is it blocked, or PUSHER_JS_URL wrong?");
      return;
    }
    try {
      pusher = Pusher.instances.find((one) => one.key === key) ?? new Pusher(key, JSON.parse(options));
    } catch (error) {
      return say(`pusher-js does not start: ${error?.message ?? error}`);
    }
    pusher.connection.bind("state_change", ({ current }) => {
      if (current === "connected") {
        isClosed = false;
        polling = clearTimeout(polling);
        return;
      }
      poll(10);
      for (const one of channels.values()) one.isLive = false;
      for (const place of places.values()) mark(place);
    });
    pusher.connection.bind("error", ({ error }) => {
      const { code, message } = error?.data ?? {};
      if (!(code >= 4000 && code < 4100)) return;
      isClosed = true;
      say(`The service closed the connection: ${code} ${message}. 'flask pusher check' looks at PUSHER_KEY and its like.`);
    });
    pusher.connection.bind("message", ({ event, channel, data }) => {
      // pusher.user does not say that it listens.
      if (channel?.startsWith("#server-to-user-")) hear(USER, event.replace("pusher_internal:", "pusher:"), data);
    });
    pusher.user.bind("pusher:signin_error", (error) => hear(USER, "pusher:subscription_error", error));
    if (pusher.connection.state === "connected") polling = clearTimeout(polling);
  }

  /** While there is no connection, what is shown may be out of date all the time. */
  function poll(seconds) {
    polling ??= setTimeout(() => {
      polling = undefined;
      poll(30);
      if (!document.hidden) for (const place of places.values()) soon(place, Math.random() * place.spread);
    }, seconds * 1000);
  }

  function join(place, name) {
    const one = channels.get(name) ?? open(name);
    if (!one) return;
    one.places.add(place);
    place.channels.push(one);
    if (!one.isLive) return;
    soon(place, MOMENT);
    showPresence(place, one);
  }

  function open(name) {
    if (!pusher) return;
    const one = { name, places: new Set(), isOurs: !pusher.channel(name), tries: 0 };
    try {
      subscribe(one);
    } catch (error) {
      return say(`${error.message} (Encrypted channels need pusher-js's build with encryption.)`);
    }
    one.channel = pusher.channel(name);
    one.listener = (event, data) => hear(name, event, data);
    one.channel?.bind_global(one.listener);
    one.isLive = one.wasLive = (one.channel ?? pusher.user.serverToUserChannel)?.subscribed;
    channels.set(name, one);
    return one;
  }

  function subscribe(one) {
    clearTimeout(one.timer);
    if (one.name !== USER) return pusher.subscribe(one.name);
    if (one.tries || one.isRefused) pusher.user.signin_requested = false; // or it asks no more
    pusher.signin();
  }

  function part({ name, channel, listener, isOurs, timer }) {
    clearTimeout(timer);
    // pusher-js would keep it, and subscribe it at each reconnection: wait for the outcome.
    if (channel?.subscriptionPending) return;
    channels.delete(name);
    channel?.unbind_global(listener);
    const isBound = channel?.global_callbacks.length || Object.keys(channel?.callbacks._callbacks ?? {}).length;
    if (isOurs && !isBound) pusher.unsubscribe(name);
  }

  function hear(name, event, data) {
    const one = channels.get(name);
    if (!one) return;
    if (event === "pusher:subscription_error") fail(one, data?.status);
    if (event === "pusher:subscription_succeeded") {
      for (const place of one.places) soon(place, one.wasLive ? Math.random() * place.spread : MOMENT);
      Object.assign(one, { isLive: true, wasLive: true, isRefused: false, tries: 0 });
    }
    for (const place of [...one.places]) {
      mark(place);
      showPresence(place, one);
      tell(place, event.startsWith("pusher:") ? event : "pusher:" + event, data);
      const { pusherOn, pusherSpread } = place.element.dataset;
      const isNamed = pusherOn === undefined ? !event.startsWith("pusher:") : pusherOn.split(/\s+/).includes(event);
      // What another page sent is no reason to ask the server.
      if (isNamed && !event.startsWith("client-")) refresh(place, pusherSpread ? Math.random() * place.spread : 0);
    }
    if (!one.places.size) part(one);
  }

  function fail(one, status) {
    if (!(status >= 400 && status < 500) || status === 429) {
      one.timer = setTimeout(subscribe, pause(++one.tries), one);
      return;
    }
    one.isRefused = true;
    const [channel, handler] = one.name === USER ? ["#server-to-user-" + user, "user_auth"] : [one.name, "auth"];
    say(`${channel} was refused with status ${status}: see what @pusher.${handler} returns, and the log at DEBUG.`);
    for (const place of one.places) tell(place, "pusher:refused", { channel, status });
  }

  /** Milliseconds, growing up to a minute, and not the same for each page. */
  function pause(tries) {
    return Math.min(60, 2 ** tries) * (500 + Math.random() * 500);
  }

  // -- What may be out of date --

  function soon(place, delay) {
    place.timer ??= setTimeout(stale, delay, place);
  }

  function stale(place) {
    place.timer = clearTimeout(place.timer);
    process(place.element);
    tell(place, "pusher:stale");
    refresh(place, 0);
  }

  /** The page is shown, or the network is back. Nothing else ends a pause. */
  function wake() {
    if (document.hidden) return;
    if (isClosed) pusher.connect();
    for (const one of channels.values()) if (one.isRefused || one.tries) subscribe(one);
    for (const source of sources.values()) source.notBefore = 0;
    for (const place of [...places.values()]) {
      place.isRefused = false;
      mark(place);
      stale(place);
    }
  }

  function process(element) {
    window.htmx?.process?.(element);
  }

  // -- Elements that show what a URL answers --

  function showing(url) {
    return [...places.values()].filter((place) => place.url === url);
  }

  function refresh({ element, url, isRefused }, delay) {
    if (!url || isRefused || !element.isConnected) return;
    if (!sources.has(url)) sources.set(url, { url, due: Infinity, notBefore: 0, tries: 0 });
    const source = sources.get(url);
    source.due = Math.min(source.due, Date.now() + delay);
    plan(source);
  }

  function plan(source) {
    clearTimeout(source.timer);
    if (source.fetching || source.due === Infinity || document.hidden) return;
    source.timer = setTimeout(load, Math.max(source.due, source.notBefore) - Date.now(), source);
  }

  function drop(url) {
    clearTimeout(sources.get(url).timer);
    sources.get(url).fetching?.abort();
    sources.delete(url);
  }

  async function load(source) {
    const { url, isOld: wasOld } = source;
    const fetching = new AbortController();
    Object.assign(source, { fetching, isOld: false, due: Infinity, notBefore: Date.now() + 250 });
    const timer = setTimeout(() => fetching.abort(), 15_000);
    let answer, text;
    try {
      const headers = addSocketId({ Accept: "text/html", "X-Pusher-Live": "1" }, url);
      const isHere = new URL(url).origin === location.origin;
      answer = isHere ? await fetch(url, { headers, redirect: "manual", cache: "no-cache", signal: fetching.signal }) : Response.error();
      text = await answer.text();
    } catch {
      answer = null;
    }
    clearTimeout(timer);
    source.fetching = null;
    // An answer that may be older than a form's is asked for again: once, or a busy page would starve.
    if (source.isOld && !wasOld) source.due = 0;
    else if (sources.get(url) === source) take(source, answer, text);
    plan(source);
  }

  function take(source, answer, text) {
    const { status, headers } = answer ?? {};
    const shown = showing(source.url);
    if (status === 204) source.tries = 0;
    else if (status === 200 && headers.get("Content-Type")?.startsWith("text/html")) {
      source.tries = 0;
      for (const place of shown) swap(place, text);
    } else if (answer && [0, 200, 401, 403, 404, 410].includes(status)) {
      for (const place of shown) refuse(place, status);
    } else {
      source.due = 0;
      source.notBefore = Date.now() + pause(++source.tries);
    }
  }

  function refuse(place, status) {
    const reasons = { 0: "a redirect, or of another origin", 200: "no HTML, or a page without this id" };
    say(`${place.url} is not shown, its answer is ${reasons[status] ?? status}.`);
    place.isRefused = true;
    mark(place);
    tell(place, "pusher:refused", { status });
  }

  function swap(place, text) {
    const { element } = place;
    if (place.text === text && place.html === element.innerHTML) return;
    try {
      const content = parse(element.id, text);
      if (!content) return refuse(place, 200);
      replace(element, content);
      process(element);
    } catch (error) {
      console.error(error); // no reason to fetch again
    }
    Object.assign(place, { text, html: element.innerHTML });
    tell(place, "pusher:swapped");
  }

  function parse(id, text) {
    const isPage = /^\s*<(!doctype|html)\b/i.test(text.replace(/<!--.*?-->/gs, ""));
    const template = document.createElement("template"); // in which rows of a table may stand alone
    if (!isPage) template.innerHTML = text;
    const content = isPage ? new DOMParser().parseFromString(text, "text/html") : template.content;
    const own = id ? content.getElementById(id) : null;
    return own || !isPage ? [...(own ?? content).childNodes] : null;
  }

  /** Swap, and keep what the user typed, chose and opened. */
  function replace(element, content) {
    if (!window.Idiomorph?.morph) return element.replaceChildren(...content);
    const touched = [...element.querySelectorAll("input, textarea, select")].filter(isTouched);
    const chosen = touched.map(({ checked, selectedOptions = [] }) => [checked, [...selectedOptions].map((one) => one.value)]);
    Idiomorph.morph(element, content, {
      morphStyle: "innerHTML",
      callbacks: {
        beforeNodeMorphed: (old, fresh) => !(old.isContentEditable || isSame(old, fresh)),
        beforeAttributeUpdated: (name, node) =>
          !["open", "data-pusher-state"].includes(name) && !(name === "value" && (touched.includes(node) || node === document.activeElement)),
      },
    });
    touched.forEach((field, number) => {
      const [checked, values] = chosen[number];
      if (checked !== undefined) field.checked = checked;
      for (const one of field.options ?? []) one.selected = values.includes(one.value);
    });
  }

  function isTouched({ type, checked, defaultChecked, options, selectedIndex, value, defaultValue }) {
    if (type === "checkbox" || type === "radio") return checked !== defaultChecked;
    if (!options) return value !== defaultValue;
    const isDefault = [...options].some((one) => one.defaultSelected);
    if (!isDefault && type === "select-one") return selectedIndex > 0;
    return [...options].some((one) => one.selected !== one.defaultSelected);
  }

  /** Whether it sees itself to what it shows. */
  function isSame(old, fresh) {
    return places.has(old) && old.matches("[data-pusher-src], [data-pusher-members], [data-pusher-count]") && ATTRIBUTES.every((name) => old.getAttribute(name) === fresh.getAttribute(name));
  }

  // -- Elements that show who is there --

  function showPresence({ element }, { name, channel, isLive }) {
    const { pusherMembers, pusherCount } = element.dataset;
    if (!isLive || !channel?.members) return;
    if (pusherMembers?.trim() === name) showMembers(element, channel.members.members);
    if (pusherCount?.trim() === name) write(element, channel.members.count);
  }

  function showMembers(element, members) {
    const template = element.querySelector("template");
    if (!template) return say("data-pusher-members needs a <template> in the element, to show a member by.");
    const copies = new Map();
    for (const copy of element.querySelectorAll("[data-pusher-member]")) {
      copies.set(copy.dataset.pusherMember, copy);
      if (!Object.hasOwn(members, copy.dataset.pusherMember)) copy.remove();
    }
    for (const [id, info] of Object.entries(members)) {
      const copy = copies.get(id) ?? template.content.firstElementChild.cloneNode(true);
      for (const part of [copy, ...copy.querySelectorAll("*")]) fill(part, info ?? {});
      if (copies.has(id)) continue;
      copy.dataset.pusherMember = id;
      template.parentNode.append(copy);
      process(copy);
    }
  }

  /** Only as text, and as pictures' addresses: members say what they like. */
  function fill(part, info) {
    for (const [attribute, name] of Object.entries(part.dataset)) {
      const value = String(Object.hasOwn(info, name) ? info[name] : "");
      if (attribute === "pusherText") write(part, value);
      if (attribute === "pusherTextAlt") part.alt = value;
      if (attribute === "pusherTextTitle") part.title = value;
      if (attribute === "pusherTextSrc" && part.tagName === "IMG") {
        if (/^https?:\/\//i.test(value)) part.src = value;
        else part.removeAttribute("src");
      }
    }
  }

  function write(element, text) {
    if (element.textContent !== String(text)) element.textContent = text;
  }

  // -- The requests of others --

  function addSocketId(headers, url) {
    const id = pusher?.connection.socket_id;
    if (id && new URL(url, document.baseURI).origin === location.origin) headers["X-Socket-ID"] = id;
    return headers;
  }

  /** What is being fetched may be older than what another request has changed. */
  function outdate() {
    for (const source of sources.values()) source.isOld = true;
  }

  function start() {
    look();
    const attributeFilter = [...ATTRIBUTES, "data-pusher-off", "data-pusher-state", "data-turbo-preview"];
    observer.observe(document, { subtree: true, childList: true, attributeFilter });
  }

  const observer = new MutationObserver(look);
  const on = (name, listener, target = document) => target.addEventListener(name, listener);
  on("htmx:configRequest", ({ detail }) => addSocketId(detail.headers, detail.path));
  on("htmx:config:request", ({ detail: { ctx } }) => addSocketId(ctx.request.headers, ctx.request.action));
  on("turbo:before-fetch-request", ({ detail }) => addSocketId(detail.fetchOptions.headers, detail.url));
  on("htmx:afterRequest", outdate);
  on("htmx:after:request", outdate);
  on("turbo:before-fetch-response", outdate);
  on("visibilitychange", wake);
  on("pageshow", ({ persisted }) => persisted && wake(), window);
  on("online", wake, window);
  // Not before the page's own scripts, which may make the connection.
  if (document.readyState === "complete") start();
  on("DOMContentLoaded", start);
  on("load", start, window);
})();
