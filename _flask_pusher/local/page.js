"use strict";

const KEPT = 2000; // events, and as many of everything else
const SHOWN = 300; // of them at once
const GONE = 20; // connections that are shown after their end

const byId = id => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

// -- What is known ---------------------------------------------------------------------------------

let state = { counts: { connections: 0, channels: 0 }, connections: [], channels: [] };
let log = []; // what happened, the oldest first
let isPaused = false; // the list is
let unseen = 0; // happened since then
let lastNumber = 0; // of what happened
let selected = null; // {kind: "channel" or "connection", name}
const lastEvents = new Map(); // the name of each channel's last event
const gone = new Map(); // the text of each connection's end, the latest last

function remember(happened) {
  for (const one of happened) {
    if (one.kind === "event") lastEvents.set(one.channel, one);
    if (one.kind === "disconnect") gone.set(one.socket_id, one);
  }
  for (const socketId of gone.keys()) {
    if (gone.size <= GONE) break;
    gone.delete(socketId);
  }
  for (const name of lastEvents.keys()) {
    if (lastEvents.size <= KEPT) break;
    lastEvents.delete(name);
  }
  log = keep([...log, ...happened]);
}

/** Forget the oldest, so that a flood of events takes nothing away that is rare. */
function keep(all) {
  const isEvent = one => one.kind === "event";
  const kept = [...all.filter(isEvent).slice(-KEPT), ...all.filter(one => !isEvent(one)).slice(-KEPT)];
  return kept.sort((one, other) => one.number - other.number);
}

// -- Now: channels and connections -----------------------------------------------------------------

/** Make a list's items those of `wanted`, and keep the elements that stay, with their focus. */
function fill(list, wanted, make, update) {
  const before = new Map([...list.children].map(item => [item.dataset.key, item]));
  let place = list.firstElementChild;
  for (const [key, value] of wanted) {
    let item = before.get(key);
    if (!item) {
      item = make(key);
      item.dataset.key = key;
    }
    before.delete(key);
    if (item === place) place = place.nextElementSibling;
    else list.insertBefore(item, place);
    update(item, value);
  }
  for (const item of before.values()) item.remove();
}

function makeRow(kind) {
  return key => {
    const item = element("li");
    const button = element("button");
    button.type = "button";
    button.append(element("span", "title", key), element("span", "number"), element("span", "more"));
    button.addEventListener("click", () => select(isSelected(kind, key) ? null : { kind, name: key }));
    item.append(button);
    return item;
  };
}

function updateRow(kind) {
  return (item, { number, more, isGone }) => {
    item.className = isGone ? "gone" : "";
    item.querySelector(".number").textContent = number;
    item.querySelector(".more").textContent = more;
    item.firstElementChild.setAttribute("aria-pressed", isSelected(kind, item.dataset.key));
  };
}

const isSelected = (kind, name) => selected?.kind === kind && selected.name === name;

function showNow() {
  const { counts, channels, connections } = state;
  byId("channel-count").textContent = countOf(counts.channels, channels);
  byId("connection-count").textContent = countOf(counts.connections, connections);
  byId("no-channels").hidden = channels.length > 0;
  byId("no-connections").hidden = connections.length > 0;
  fill(byId("channels"), channels.map(channel => [channel.name, aboutChannel(channel)]),
    makeRow("channel"), updateRow("channel"));
  const ended = [...gone.values()].reverse().map(one => [
    one.socket_id, { number: "gone", more: `at ${clock(one.at)}`, isGone: true },
  ]);
  const open = connections.map(connection => [connection.socket_id, aboutConnection(connection)]);
  fill(byId("connections"), open, makeRow("connection"), updateRow("connection"));
  fill(byId("gone-connections"), ended, makeRow("connection"), updateRow("connection"));
  byId("gone").hidden = ended.length === 0;
  byId("gone-count").textContent = `${ended.length} gone`;
  fill(byId("channel-names"), channels.map(channel => [channel.name, channel.name]),
    () => element("option"), (option, name) => { option.value = name; });
  showSelection();
}

function countOf(count, shown) {
  return count > shown.length ? `${count}, the first ${shown.length} here` : count || "";
}

function aboutChannel(channel) {
  const members = Object.entries(channel.members).map(([id, info]) => nameOf(id, info));
  const last = lastEvents.get(channel.name);
  const parts = [];
  if (members.length) parts.push(members.slice(0, 8).join(", ") + (members.length > 8 ? ", …" : ""));
  if (last) parts.push(`last: ${last.event} at ${clock(last.at)}`);
  return { number: plural(channel.subscribers, "subscriber"), more: parts.join(" · ") };
}

/** A member's name, as most applications give it in `user_info`, beside the id. */
function nameOf(id, info) {
  return typeof info?.name === "string" ? `${info.name} (${id})` : id;
}

function aboutConnection(connection) {
  return {
    number: plural(connection.channels.length, "channel"),
    more: connection.user_id === null ? "" : `signed in as ${connection.user_id}`,
  };
}

function select(what) {
  selected = what;
  showNow();
  showLog();
}

function showSelection() {
  byId("selection").hidden = selected === null;
  if (selected === null) return;
  byId("selected").textContent = selected.name;
  const members = [];
  let about = "";
  if (selected.kind === "channel") {
    const channel = state.channels.find(one => one.name === selected.name);
    about = channel ? plural(channel.subscribers, "subscriber") : "Nobody is subscribed.";
    for (const [id, info] of Object.entries(channel?.members ?? {})) {
      members.push(element("dt", "", nameOf(id, info)), element("dd", "", info ? JSON.stringify(info) : ""));
    }
  } else {
    const connection = state.connections.find(one => one.socket_id === selected.name);
    about = "This connection has ended.";
    if (connection) {
      const user = connection.user_id === null ? "Not signed in" : `Signed in as ${connection.user_id}`;
      about = `${user}. On ${connection.channels.join(", ") || "no channel"}.`;
    }
  }
  byId("selected-about").textContent = about;
  byId("members").replaceChildren(...members);
}

// -- What happened ---------------------------------------------------------------------------------

function clock(seconds) {
  const time = new Date(seconds * 1000);
  const milliseconds = String(time.getMilliseconds()).padStart(3, "0");
  return `${time.toTimeString().slice(0, 8)}.${milliseconds}`;
}

function isWanted(one) {
  const kinds = byId("kind").value;
  const channel = byId("on").value.trim();
  if (kinds && !kinds.split(",").includes(one.kind)) return false;
  if (channel && !one.channel?.includes(channel)) return false;
  if (selected?.kind === "channel") return one.channel === selected.name;
  if (selected?.kind === "connection") return one.socket_id === selected.name;
  return true;
}

/** A connection's story is read from its beginning, everything else from what is new. */
const isStory = () => selected?.kind === "connection";

function makeEntry(one) {
  const item = element("li", one.kind.replace(" ", "-") + (one.wrong ? " wrong" : ""));
  const time = element("time", "", clock(one.at));
  time.dateTime = new Date(one.at * 1000).toISOString();
  const parts = [time, element("span", "kind", one.kind), element("span", "text", summaryOf(one))];
  if (one.data === null) {
    const line = element("div", "line");
    line.append(...parts);
    item.append(line);
    return item;
  }
  const details = element("details");
  const summary = element("summary", "line");
  summary.append(...parts);
  details.append(summary);
  // Formatted when somebody looks: a busy channel has hundreds of these a second.
  details.addEventListener("toggle", () => {
    if (details.open) pause(true);
    if (details.open && details.children.length === 1) {
      const whole = element("pre", "", formatted(one));
      whole.tabIndex = 0;
      details.append(whole);
    }
  });
  item.append(details);
  return item;
}

function summaryOf(one) {
  return one.kind === "event" && one.socket_id !== null ? `${one.text}, from ${one.socket_id}` : one.text;
}

function formatted(one) {
  try {
    return JSON.stringify(JSON.parse(one.data), null, 2);
  } catch {
    return one.data;
  }
}

function showLog() {
  const wanted = log.filter(isWanted).slice(-SHOWN);
  if (!isStory()) wanted.reverse();
  byId("log").replaceChildren(...wanted.map(makeEntry));
  showWhetherNothing();
}

function showWhetherNothing() {
  byId("nothing").hidden = byId("log").children.length > 0;
  byId("nothing").textContent = log.length > 0
    ? "Nothing of what is kept here is like that."
    : "Nothing yet. Open a page of the application, or trigger an event.";
}

function showNews(happened) {
  const list = byId("log");
  const entries = happened.filter(isWanted).slice(-SHOWN).map(makeEntry);
  if (isStory()) list.append(...entries);
  else list.prepend(...entries.reverse());
  while (list.children.length > SHOWN) {
    (isStory() ? list.firstElementChild : list.lastElementChild).remove();
  }
  showWhetherNothing();
}

/** Say it where so much happened that the server has not kept all of it for this page. */
function tellMissed(happened) {
  const first = happened[0];
  const missed = happened.at(-1).number - lastNumber - happened.length;
  if (lastNumber && missed > 0) {
    const text = `${plural(missed, "thing")} more, too fast to be shown`;
    happened.unshift({ ...first, kind: "missed", wrong: true, text, socket_id: null, channel: null, data: null });
  }
  lastNumber = happened.at(-1).number;
}

function happen(happened) {
  if (happened.length) tellMissed(happened);
  remember(happened);
  if (isPaused) {
    unseen += happened.length;
    showPause();
  } else {
    showNews(happened);
  }
  showNow();
}

function showPause() {
  byId("pause").className = isPaused ? "paused" : "";
  byId("pause").textContent = !isPaused ? "Pause" : unseen ? `Go on (${unseen} new)` : "Go on";
}

function pause(paused) {
  if (paused === isPaused) return;
  isPaused = paused;
  unseen = 0;
  showPause();
  if (!paused) showLog();
}

byId("pause").addEventListener("click", () => pause(!isPaused));
// Who reads one entry, or has come to it by keyboard, does not lose it to a flood of others.
byId("log").addEventListener("focusin", () => pause(true));
byId("clear").addEventListener("click", () => {
  log = [];
  unseen = 0;
  showPause();
  gone.clear();
  lastEvents.clear();
  showNow();
  showLog();
});
byId("kind").addEventListener("change", showLog);
byId("on").addEventListener("input", showLog);
byId("deselect").addEventListener("click", () => select(null));
document.querySelector(".filters").addEventListener("submit", event => event.preventDefault());

// -- Triggering ------------------------------------------------------------------------------------

/** What is wrong with the data, in words, or nothing. */
function problemOf(data) {
  if (byId("as-text").checked) return "";
  try {
    JSON.parse(data);
    return "";
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
}

function checkData() {
  const problem = problemOf(byId("data").value);
  byId("problem").textContent = problem;
  byId("data").setAttribute("aria-invalid", problem !== "");
  return problem === "";
}

async function trigger() {
  const [channel, name, data] = ["channel", "name", "data"].map(id => byId(id).value);
  const answer = byId("answer");
  try {
    const response = await fetch("/page/trigger", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ channel, name, data }),
    });
    answer.className = response.ok ? "" : "wrong";
    answer.textContent = response.ok
      ? `Triggered, for ${plural((await response.json()).subscribers, "subscriber")}.`
      : await response.text();
  } catch {
    answer.className = "wrong";
    answer.textContent = "The server does not answer.";
  }
}

byId("triggering").open = matchMedia("(min-width: 56rem)").matches;
byId("data").addEventListener("input", checkData);
byId("as-text").addEventListener("change", checkData);
byId("trigger").addEventListener("submit", event => {
  event.preventDefault();
  if (checkData()) trigger();
  else byId("data").focus();
});
byId("data").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("trigger").requestSubmit();
});

// -- The stream ------------------------------------------------------------------------------------

function showStatus(className, text) {
  if (byId("status").textContent === text) return;
  byId("status").className = className;
  byId("status").textContent = text;
}

const stream = new EventSource("/page/stream");
const on = (name, handle) =>
  stream.addEventListener(name, message => handle(JSON.parse(message.data)));

on("about", about => {
  byId("about").textContent = `app ${about.app_id}, key ${about.key}`;
  log = []; // a stream that begins again tells all again
  lastNumber = 0;
  gone.clear();
  byId("log").replaceChildren();
  showWhetherNothing();
  showStatus("live", "Live");
});
on("state", now => {
  state = now;
  showNow();
});
on("happened", happen);
stream.addEventListener("error", () => showStatus("lost", "The server does not answer."));
