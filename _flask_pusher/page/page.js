// Flask-Pusher's page, see docs.
(() => {
  if (document.flaskPusher === true) return;
  document.flaskPusher = true;

  const ATTRIBUTES = ["", "-user", "-src", "-members", "-count", "-on", "-spread"].map((end) => "data-pusher" + end);
  const LIVE = `:is([${ATTRIBUTES.slice(0, 5).join("], [")}]):not([data-pusher-off] *)`;
  const USER = "#server-to-user";

  const places = new Map();
  const channels = new Map();
  const sources = new Map();
  const said = new Set();
  let pusher, user, polling;

  const attributes = (element) => JSON.stringify(ATTRIBUTES.map((name) => element.getAttribute(name)));
  const isSame = (old, fresh) => places.get(old)?.attributes === attributes(fresh);
  const showing = (url) => [...places.values()].filter((place) => place.url === url && !place.isRefused);
  const spread = (place) => Math.random() * (place.spread ?? 5) * 1000;
  const isConnected = () => pusher?.connection.state === "connected";
  const isLive = ({ channel = pusher.user.serverToUserChannel }) => isConnected() && channel?.subscribed;
  const link = (href) => Object.assign(document.createElement("a"), { href });
  const isHere = (url) => link(url).origin === location.origin;

  const soon = (place, delay) => (place.timer ??= setTimeout(stale, delay || 50, place));
  const tell = ({ element }, name, detail) => element.dispatchEvent(new CustomEvent(name, { detail }));
  const pause = (tries) => Math.min(60, 2 ** tries) * 500 * (1 + Math.random());

  function say(text) {
    if (!said.has(text)) console.warn("Flask-Pusher: " + text);
    said.add(text);
  }

  function mark({ element, channels, members, count, isRefused }) {
    for (const { name, channel } of channels) {
      if (!channel?.subscribed || !channel.members) continue;
      if (members === name) showMembers(element, channel.members.members);
      if (count === name) write(element, "textContent", channel.members.count);
    }
    const state = channels.length && channels.every(isLive) ? "live" : "connecting";
    write(element.dataset, "pusherState", isRefused || channels.some((one) => one.isRefused) ? "refused" : state);
  }

  function look() {
    if (document.querySelector(":root[data-turbo-preview]")) return;
    const found = new Set(document.querySelectorAll(LIVE));
    if (found.size && !pusher && connect()) places.clear();
    if (pusher) follow([...found].map((element) => element.dataset.pusherUser).find(Boolean));
    for (const element of found)
      if (isSame(element, element)) mark(places.get(element));
      else begin(element);
    for (const element of places.keys()) if (!found.has(element)) end(element);
    // Last: a swap puts it back.
    for (const one of channels.values()) if (!one.places.size) part(one);
  }

  function follow(now = null) {
    if (user !== undefined && user !== now) {
      pusher.user.signin_requested = false;
      pusher.disconnect();
      pusher.connect();
      if (now) pusher.signin();
    }
    user = now;
  }

  function begin(element) {
    end(element);
    const place = { element, channels: [], attributes: attributes(element) };
    const [listed, person, src, members, count, on, spread] = JSON.parse(place.attributes);
    Object.assign(place, { members, count, on, spread, isFilled: (src ?? members ?? count) !== null });
    places.set(element, place);
    const names = new Set([listed, members, count, person && USER].join(" ").match(/\S+/g));
    if (src !== null && names.size && (src || element.id) && isHere(src)) place.url = link(src || location.href).href.split("#")[0];
    else if (src !== null) say(`data-pusher-src="${src}" needs a channel, this origin, and where it is empty an id.`);
    if (members) showMembers(element, {});
    if (pusher) for (const name of names) join(place, name);
    mark(place);
  }

  function end(element) {
    const place = places.get(element);
    clearTimeout(place?.timer);
    for (const one of place?.channels ?? []) one.places.delete(place);
    places.delete(element);
  }

  function connect() {
    try {
      const { key, options } = document.querySelector("script[data-options]").dataset;
      pusher = Pusher.instances.find((one) => one.key === key) ?? new Pusher(key, JSON.parse(options));
      for (const name of ["userAuthenticator", "channelAuthorizer"]) {
        const ask = pusher.config[name]; // if not late
        pusher.config[name] = (about, done) => ask(about, (...answer) => about.socketId === pusher.connection.socket_id && done(...answer));
      }
      pusher.connection.bind("state_change", turn);
      pusher.connection.bind("error", ({ error }) => {
        if (/^40..$/.test(error?.data?.code)) say(`${error.data.code} ${error.data.message}. See 'flask pusher check'.`);
      });
      // pusher.user tells no success.
      pusher.connection.bind("message", ({ event, channel, data }) => {
        if (channel?.startsWith(USER)) hear(USER, event.replace("pusher_internal:", "pusher:"), data);
      });
      pusher.user.bind("pusher:signin_error", (error) => hear(USER, "pusher:subscription_error", error));
    } catch (error) {
      say(`No connection: ${error}. See PUSHER_JS_URL.`);
    }
    turn();
    return pusher;
  }

  function turn() {
    if (isConnected()) polling = clearTimeout(polling);
    else polling ??= setTimeout(poll, 10_000);
    places.forEach(mark);
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
    if (isLive(one)) soon(place);
  }

  function open(name) {
    const one = { name, places: new Set(), isOurs: !pusher.channel(name), tries: 0 };
    try {
      subscribe(one);
    } catch (error) {
      return say(`${error}. Is it pusher-js's build with encryption?`);
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
    if (one.name === USER) pusher.signin();
    else pusher.subscribe(one.name);
  }

  function part({ name, channel, listener, isOurs, timer }) {
    clearTimeout(timer);
    // Or pusher-js subscribes it again.
    if (channel?.subscriptionPending) return;
    channels.delete(name);
    channel?.unbind_global(listener);
    const bound = Object.keys({ ...channel?.global_callbacks, ...channel?.callbacks._callbacks });
    if (isOurs && !bound.length) pusher.unsubscribe(name);
  }

  function hear(name, event, data) {
    const one = channels.get(name);
    if (!one) return;
    if (event === "pusher:subscription_error") fail(one, data?.status);
    if (event === "pusher:subscription_succeeded") {
      for (const place of one.places) soon(place, one.wasLive && spread(place));
      Object.assign(one, { wasLive: true, isRefused: false, tries: 0 });
    }
    const isInternal = event.startsWith("pusher:");
    for (const place of one.places) {
      mark(place);
      tell(place, isInternal ? event : "pusher:" + event, data);
      const isNamed = place.on ? place.on.split(/\s+/).includes(event) : !isInternal;
      if (isNamed && !event.startsWith("client-")) refresh(place, place.spread && spread(place));
    }
    if (!one.places.size) part(one);
  }

  function fail(one, status) {
    if (one.name === USER) pusher.user.signin_requested = false;
    if (one.channel) one.channel.subscriptionPending = false;
    one.isRefused = /^4(?!29)..$/.test(status);
    if (!one.isRefused) return (one.timer = setTimeout(subscribe, pause(++one.tries), one));
    say(`${one.name} was refused with status ${status}. See the log at DEBUG.`);
    for (const place of one.places) tell(place, "pusher:refused", { channel: one.name, status });
  }

  function stale(place) {
    place.timer = clearTimeout(place.timer);
    if (document.hidden) return;
    mark(place);
    tell(place, "pusher:stale");
    refresh(place);
  }

  function wake({ persisted }) {
    if (document.hidden || persisted === false) return;
    if (pusher?.connection.state === "disconnected") pusher.connect();
    for (const one of channels.values()) if (one.isRefused || one.tries) subscribe(one);
    sources.forEach((source) => (source.notBefore = 0));
    places.forEach((place) => stale(Object.assign(place, { isRefused: false })));
  }

  function refresh({ url, isRefused }, delay = 0) {
    if (!url || isRefused) return;
    const source = sources.get(url) ?? { url, due: Infinity, notBefore: 0, tries: 0 };
    sources.set(url, source);
    source.due = Math.min(source.due, Date.now() + delay);
    plan(source);
  }

  function plan(source) {
    clearTimeout(source.timer);
    if (source.isLoading || source.due === Infinity) return;
    source.timer = setTimeout(load, Math.max(source.due, source.notBefore) - Date.now(), source);
  }

  async function load(source) {
    const { url, isOld: wasOld } = source;
    if (document.hidden || !showing(url).length) return;
    Object.assign(source, { isLoading: true, isOld: false, due: Infinity, notBefore: Date.now() + 250 });
    const headers = addSocketId({ "X-Pusher-Live": "1" }, url);
    let answer, text;
    try {
      answer = await fetch(url, { headers, redirect: "manual", cache: "no-cache", signal: AbortSignal.timeout(15_000) });
      text = await answer.text();
    } catch {
      answer = {};
    }
    source.isLoading = false;
    // Older than a form's answer?
    if (source.isOld) source.due = 0;
    if (source.isOld && !wasOld) plan(source);
    else take(source, answer, text);
  }

  function take(source, { status, headers }, text) {
    const isPage = status === 200 && headers.get("Content-Type")?.startsWith("text/html");
    const isFinal = /^(0|20[04]|40[134]|410)$/.test(status);
    if (isFinal) source.tries = 0;
    else Object.assign(source, { due: 0, notBefore: Date.now() + pause(++source.tries) });
    if (source.tries === 1) console.warn(`Flask-Pusher: ${source.url} is not shown: ${status || "no answer"}. See the server's log.`);
    for (const place of showing(source.url))
      if (isPage) swap(place, text);
      else if (!isFinal) tell(place, "pusher:failed", { status });
      else if (status !== 204) refuse(place, status);
    plan(source);
  }

  function refuse(place, status) {
    place.isRefused = true;
    mark(place);
    say(`${place.url} is not shown: ${status || "a redirect"}, or no HTML of this id.`);
    tell(place, "pusher:refused", { status });
  }

  const html = (element) => element.innerHTML.replace(/ data-pusher-state="\w+"/g, "");

  async function swap(place, text) {
    const { element } = place;
    if (place.shown === text + html(element)) return;
    const isPage = /<(!doctype )?html[\s>]/i.test(text);
    const template = document.createElement("template");
    template.innerHTML = text;
    const content = isPage ? new DOMParser().parseFromString(text, "text/html") : template.content;
    const own = content.querySelector(`[id="${CSS.escape(element.getAttribute("id"))}"]:not([data-pusher-off] *)`);
    if (isPage && !own) return refuse(place, 200);
    replace(element, (own ?? content).childNodes);
    window.htmx?.process?.(element);
    place.shown = text + html(element);
    tell(place, "pusher:swapped");
  }

  function replace(element, content) {
    if (!window.Idiomorph?.morph) return element.replaceChildren(...content);
    const touched = [...element.querySelectorAll(":not(form)")].filter(isTouched);
    const callbacks = {
      beforeNodeMorphed: (old, fresh) => !touched.includes(old) && !(places.get(old)?.isFilled && isSame(old, fresh)),
      beforeAttributeUpdated: (name) => name !== "open" && name !== "data-pusher-state",
    };
    const chosen = touched.filter((one) => one.checked);
    Idiomorph.morph(element, content, { morphStyle: "innerHTML", callbacks });
    for (const one of chosen) one.checked = true;
  }

  function isTouched(old) {
    if (!old.matches("input, textarea, select")) return old.isContentEditable;
    if (old === document.activeElement || old.checked !== old.defaultChecked) return true;
    if (/box|radio|file/.test(old.type)) return old.files?.length;
    const fresh = old.cloneNode(true);
    if (old.options) return [...old.options].some((one, at) => one.selected !== fresh.options[at].selected);
    return old.value !== Object.assign(fresh, { value: old.defaultValue }).value;
  }

  function showMembers(element, members) {
    const template = element.querySelector("template");
    const pattern = template?.content.firstElementChild;
    if (!pattern) return say("data-pusher-members needs a <template> with an element.");
    const copies = [...element.querySelectorAll("[data-pusher-member]")];
    for (const copy of copies) if (!Object.hasOwn(members, copy.dataset.pusherMember)) copy.remove();
    for (const [id, info] of Object.entries(members)) {
      const shown = copies.find((copy) => copy.dataset.pusherMember === id);
      const copy = shown ?? template.parentNode.appendChild(pattern.cloneNode(true));
      copy.dataset.pusherMember = id;
      for (const part of [copy, ...copy.querySelectorAll("*")]) fill(part, info ?? {});
    }
  }

  function fill(part, info) {
    for (const end of ["", "-alt", "-title", "-src"]) {
      const name = part.getAttribute("data-pusher-text" + end);
      if (name === null || (end === "-src" && part.tagName !== "IMG")) continue;
      const value = Object.hasOwn(info, name) ? info[name] : null;
      const isShown = typeof value !== "object" && (end !== "-src" || /^https?:/i.test(value));
      write(part, end.slice(1) || "textContent", isShown ? value : "");
    }
  }

  function write(element, property, value) {
    if (element[property] !== String(value)) element[property] = value;
  }

  function addSocketId(headers, url) {
    const id = pusher?.connection.socket_id;
    if (id && isHere(url)) headers["X-Socket-ID"] = id;
    return headers;
  }

  const observer = new MutationObserver(look);

  function start() {
    look();
    observer.observe(document, { subtree: true, childList: true, attributeFilter: [...ATTRIBUTES, "data-pusher-state"] });
  }

  addEventListener("htmx:configRequest", ({ detail }) => addSocketId(detail.headers, detail.path));
  addEventListener("htmx:config:request", ({ detail }) => addSocketId(detail.ctx.request.headers, detail.ctx.request.action));
  addEventListener("turbo:before-fetch-request", ({ detail }) => addSocketId(detail.fetchOptions.headers, detail.url));
  for (const name of ["htmx:afterRequest", "htmx:after:request", "turbo:before-fetch-response"])
    addEventListener(name, () => sources.forEach((source) => (source.isOld = source.isLoading)));
  for (const name of ["visibilitychange", "pageshow", "online"]) addEventListener(name, wake, true);
  if (document.readyState === "complete") start();
  for (const name of ["DOMContentLoaded", "load"]) addEventListener(name, start);
})();
