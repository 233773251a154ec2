// Flask-Pusher: elements listen to channels, and show what URLs answer.
(() => {
  "use strict";
  const loaded = Symbol.for("flask-pusher");
  if (document[loaded]) return;
  document[loaded] = true;

  const { key, options } = document.querySelector("script[data-key][data-options]")?.dataset ?? {};
  const ATTRIBUTES = ["", "-user", "-src", "-members", "-count", "-on", "-spread"].map((end) => "data-pusher" + end);
  const LIVE = `:is([${ATTRIBUTES.slice(0, 5).join("], [")}]):not([data-pusher-off] *)`;
  const USER = "#server-to-user"; // the signed-in user's channel
  const MOMENT = 50; // ms, in which htmx processes what came

  const places = new Map(); // of elements: what each listens to and shows
  const channels = new Map(); // of names: who listens to each, and how it is
  const sources = new Map(); // of URLs: when each is fetched
  const said = new Set();
  let pusher, user, polling;
  let isClosed = false; // by the service, for good

  const attributes = (element) => ATTRIBUTES.map((name) => element.getAttribute(name));
  const isSame = (place, element) => JSON.stringify(place.attributes) === JSON.stringify(attributes(element));
  const showing = (url) => [...places.values()].filter((place) => place.url === url);
  const spread = (place) => Math.random() * (place.spread ?? 5) * 1000 || 0;
  const isConnected = () => pusher?.connection.state === "connected";
  const isLive = ({ channel }) => isConnected() && (channel ?? pusher.user.serverToUserChannel)?.subscribed;
  const process = (element) => window.htmx?.process?.(element);
  const link = (href) => Object.assign(document.createElement("a"), { href });
  const isHere = (url) => link(url).origin === location.origin;

  function say(text) {
    if (!said.has(text)) console.warn("Flask-Pusher: " + text);
    said.add(text);
  }

  function tell(place, name, detail = null) {
    place.element.dispatchEvent(new CustomEvent(name, { detail }));
  }

  function mark({ element, channels, isRefused }) {
    const state = channels.length && channels.every(isLive) ? "live" : "connecting";
    const shown = isRefused || channels.some((one) => one.isRefused) ? "refused" : state;
    if (element.dataset.pusherState !== shown) element.dataset.pusherState = shown;
  }

  // -- Elements, looked for in the whole page after each batch of changes --

  function look() {
    if (document.documentElement.hasAttribute("data-turbo-preview")) return;
    const found = new Set(document.querySelectorAll(LIVE));
    if (found.size && !pusher) connect();
    if (pusher) follow([...found].map((element) => element.dataset.pusherUser).find(Boolean));
    for (const element of found) {
      const place = places.get(element);
      if (place && isSame(place, element)) mark(place);
      else begin(element);
    }
    for (const element of places.keys()) if (!found.has(element)) end(element);
    // Last, for a swap may take out and put in again.
    for (const one of channels.values()) if (!one.places.size) part(one);
    for (const url of sources.keys()) if (!showing(url).length) sources.delete(url);
  }

  function follow(now = null) {
    if (user !== undefined && user !== now) {
      pusher.user.signin_requested = false;
      pusher.disconnect(); // with all that the last user was granted
      pusher.connect();
      if (now) pusher.signin();
    }
    user = now;
  }

  function begin(element) {
    end(element);
    const place = { element, attributes: attributes(element), channels: [] };
    const [listed, person, src, members, count, on, spread] = place.attributes;
    const names = new Set([listed, members, count].join(" ").split(/\s+/).filter(Boolean));
    if (person) names.add(USER);
    if (src !== null) {
      if (!names.size) say("data-pusher-src needs data-pusher, a channel.");
      else if (!src && !element.id) say("An empty data-pusher-src needs an id.");
      else if (!isHere(src)) say(`${src} is of another origin.`);
      else place.url = link(src || location.href).href.split("#")[0];
    }
    const isFilled = (src ?? members ?? count) !== null;
    places.set(element, Object.assign(place, { members, count, on, spread, isFilled }));
    if (members) showMembers(element, {});
    for (const name of names) join(place, name);
    mark(place);
  }

  function end(element) {
    const place = places.get(element);
    clearTimeout(place?.timer);
    for (const one of place?.channels ?? []) one.places.delete(place);
    places.delete(element);
  }

  // -- The connection and its channels --

  function connect() {
    try {
      pusher = Pusher.instances.find((one) => one.key === key) ?? new Pusher(key, JSON.parse(options));
      pusher.connection.bind("state_change", turn);
      pusher.connection.bind("error", ({ error }) => close(error?.data ?? {}));
      // pusher.user does not say that it listens.
      pusher.connection.bind("message", ({ event, channel, data }) => {
        if (channel?.startsWith(USER)) hear(USER, event.replace("pusher_internal:", "pusher:"), data);
      });
      pusher.user.bind("pusher:signin_error", (error) => hear(USER, "pusher:subscription_error", error));
    } catch (error) {
      if (document.readyState === "complete") say(`No pusher-js: ${error.message ?? error}. See PUSHER_JS_URL, and what the page blocks.`);
    }
    turn();
  }

  function close({ code, message }) {
    if (!/^40..$/.test(code)) return;
    isClosed = true;
    say(`The service closed the connection: ${code} ${message}. Try 'flask pusher check'.`);
  }

  function turn() {
    if (isConnected()) {
      isClosed = false;
      polling = clearTimeout(polling);
      return;
    }
    polling ??= setTimeout(poll, 10_000);
    for (const place of places.values()) mark(place);
  }

  function poll() {
    for (const place of places.values()) soon(place, spread(place));
    polling = setTimeout(poll, 30_000);
  }

  function join(place, name) {
    const one = channels.get(name) ?? open(name);
    if (!one) return;
    one.places.add(place);
    place.channels.push(one);
    if (isLive(one)) soon(place, MOMENT);
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
    one.wasLive = isLive(one);
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
    // pusher-js would subscribe it again: wait for the outcome.
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
      for (const place of one.places) soon(place, one.wasLive ? spread(place) : MOMENT);
      Object.assign(one, { wasLive: true, isRefused: false, tries: 0 });
    }
    const isInternal = event.startsWith("pusher:");
    for (const place of [...one.places]) {
      mark(place);
      showPresence(place, one);
      tell(place, isInternal ? event : "pusher:" + event, data);
      const isNamed = place.on ? place.on.split(/\s+/).includes(event) : !isInternal;
      // Other pages do not decide when the server is asked.
      if (isNamed && !event.startsWith("client-")) refresh(place, place.spread && spread(place));
    }
    if (!one.places.size) part(one);
  }

  function fail(one, status) {
    one.isRefused = /^4(?!29)..$/.test(status);
    if (!one.isRefused) {
      one.timer = setTimeout(subscribe, pause(++one.tries), one);
      return;
    }
    say(`${one.name} was refused with status ${status}. The application's log says why, at DEBUG.`);
    for (const place of one.places) tell(place, "pusher:refused", { channel: one.name, status });
  }

  function pause(tries) {
    return Math.min(60, 2 ** tries) * (500 + Math.random() * 500);
  }

  // -- What may be out of date --

  function soon(place, delay) {
    place.timer ??= setTimeout(stale, delay, place);
  }

  function stale(place) {
    place.timer = clearTimeout(place.timer);
    if (document.hidden) return;
    mark(place);
    tell(place, "pusher:stale");
    refresh(place);
  }

  /** The page is shown, or the network is back. */
  function wake() {
    if (document.hidden) return;
    if (isClosed) pusher.connect();
    for (const one of channels.values()) if (one.isRefused || one.tries) subscribe(one);
    for (const source of sources.values()) source.notBefore = 0;
    for (const place of [...places.values()]) {
      place.isRefused = false;
      stale(place);
    }
  }

  // -- What a URL answers --

  function refresh({ element, url, isRefused }, delay = 0) {
    if (!url || isRefused || !element.isConnected) return;
    const source = sources.get(url) ?? { url, due: Infinity, notBefore: 0, tries: 0 };
    sources.set(url, source);
    source.due = Math.min(source.due, Date.now() + delay);
    plan(source);
  }

  function plan(source) {
    clearTimeout(source.timer);
    if (source.isLoading || source.due === Infinity || document.hidden) return;
    source.timer = setTimeout(load, Math.max(source.due, source.notBefore) - Date.now(), source);
  }

  async function load(source) {
    const { url, isOld: wasOld } = source;
    Object.assign(source, { isLoading: true, isOld: false, due: Infinity, notBefore: Date.now() + 250 });
    const headers = addSocketId({ Accept: "text/html", "X-Pusher-Live": "1" }, url);
    const init = { headers, redirect: "manual", cache: "no-cache", signal: AbortSignal.timeout(15_000) };
    const request = fetch(url, init).then(async (answer) => [answer, await answer.text()]);
    const [answer, text] = await request.catch(() => [{}]);
    source.isLoading = false;
    // It may be older than a form's answer: asked again, once.
    if (source.isOld && !wasOld) source.due = 0;
    else take(source, answer, text);
    plan(source);
  }

  function take(source, { status, headers }, text) {
    const isPage = status === 200 && headers.get("Content-Type")?.startsWith("text/html");
    const isRefusal = [0, 200, 401, 403, 404, 410].includes(status);
    source.tries = isPage || status === 204 || isRefusal ? 0 : source.tries + 1;
    if (source.tries) Object.assign(source, { due: 0, notBefore: Date.now() + pause(source.tries) });
    for (const place of showing(source.url)) {
      if (isPage) swap(place, text);
      else if (isRefusal) refuse(place, status);
    }
  }

  function refuse(place, status) {
    place.isRefused = true;
    mark(place);
    say(`${place.url} is not shown: ${{ 0: "it redirects", 200: "no HTML, or none of its id" }[status] ?? status}.`);
    tell(place, "pusher:refused", { status });
  }

  function swap(place, text) {
    const { element } = place;
    if (place.shown === text + element.innerHTML) return;
    try {
      const content = parse(element.id, text);
      if (!content) return refuse(place, 200);
      replace(element, content.childNodes);
      process(element);
    } catch (error) {
      console.error(error); // no reason to fetch again
    }
    place.shown = text + element.innerHTML;
    tell(place, "pusher:swapped");
  }

  function parse(id, text) {
    const isPage = /^\s*<(!doctype|html)\b/i.test(text.replace(/<!--.*?-->/gs, ""));
    const template = document.createElement("template"); // where rows may stand without a table
    template.innerHTML = text;
    const content = isPage ? new DOMParser().parseFromString(text, "text/html") : template.content;
    return content.getElementById(id) ?? (isPage ? null : content);
  }

  function replace(element, content) {
    if (!window.Idiomorph?.morph) return element.replaceChildren(...content);
    Idiomorph.morph(element, content, {
      morphStyle: "innerHTML",
      callbacks: {
        // An element inside keeps what it has filled itself.
        beforeNodeMorphed: (old, fresh) => !isTouched(old) && !(places.get(old)?.isFilled && isSame(places.get(old), fresh)),
        beforeAttributeUpdated: (name) => name !== "open" && name !== "data-pusher-state",
      },
    });
  }

  /** A field stays as the user has changed it. */
  function isTouched(old) {
    if (!old.matches?.("input, textarea, select")) return old.isContentEditable;
    if (old === document.activeElement || old.checked !== old.defaultChecked) return true;
    // The first is selected by default.
    if (old.options) return [...old.options].some((one) => one.selected !== one.defaultSelected && (one.index || old.multiple));
    return !/box|radio/.test(old.type) && old.value !== old.defaultValue;
  }

  // -- Who is there --

  function showPresence({ element, members, count }, { name, channel }) {
    if (!channel?.subscribed || !channel.members) return;
    if (members === name) showMembers(element, channel.members.members);
    if (count === name) write(element, "textContent", channel.members.count);
  }

  function showMembers(element, members) {
    const template = element.querySelector("template");
    if (!template) return say("data-pusher-members needs a <template> inside.");
    for (const copy of element.querySelectorAll("[data-pusher-member]")) {
      if (!Object.hasOwn(members, copy.dataset.pusherMember)) copy.remove();
    }
    for (const [id, info] of Object.entries(members)) {
      let copy = element.querySelector(`[data-pusher-member="${CSS.escape(id)}"]`);
      if (!copy) {
        copy = template.content.firstElementChild.cloneNode(true);
        copy.dataset.pusherMember = id;
        template.parentNode.append(copy);
      }
      for (const part of [copy, ...copy.querySelectorAll("*")]) fill(part, info ?? {});
    }
    process(element);
  }

  /** Members say what they like: it becomes text, and pictures. */
  function fill(part, info) {
    const properties = { pusherText: "textContent", pusherTextAlt: "alt", pusherTextTitle: "title", pusherTextSrc: "src" };
    for (const [attribute, name] of Object.entries(part.dataset)) {
      const property = properties[attribute];
      const value = Object.hasOwn(info, name) ? String(info[name]) : "";
      if (property !== "src") property && write(part, property, value);
      else if (part.tagName === "IMG") write(part, property, /^https?:/i.test(value) ? value : "");
    }
  }

  function write(element, property, value) {
    if (element[property] !== String(value)) element[property] = value;
  }

  // -- The requests of others --

  function addSocketId(headers, url) {
    const id = pusher?.connection.socket_id;
    if (id && isHere(url)) headers["X-Socket-ID"] = id;
    return headers;
  }

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
  on("htmx:config:request", ({ detail }) => addSocketId(detail.ctx.request.headers, detail.ctx.request.action));
  on("turbo:before-fetch-request", ({ detail }) => addSocketId(detail.fetchOptions.headers, detail.url));
  for (const name of ["htmx:afterRequest", "htmx:after:request", "turbo:before-fetch-response"]) on(name, outdate);
  on("visibilitychange", wake);
  on("online", wake, window);
  on("pageshow", ({ persisted }) => persisted && wake(), window);
  // After the page's own scripts, which may make the connection.
  if (document.readyState === "complete") start();
  on("DOMContentLoaded", start);
  on("load", start, window);
})();
