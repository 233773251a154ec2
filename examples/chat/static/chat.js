"use strict";

const TYPING_SECONDS = 4;
const MOST_SHOWN = 100; // messages that a tab keeps, and webhooks
const FACES = 12;
const settings = JSON.parse(document.getElementById("settings").textContent);

const byId = (id) => document.getElementById(id);
const tell = (...problem) => byId("problem").replaceChildren(...problem);

// Text goes in as text nodes, which no browser takes for markup.
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function makeTime(date) {
  const text = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return make("time", { dateTime: date.toISOString() }, text);
}

const faces = new Map(); // a user's id, to the number of the colour

// The colour follows from the id. Where somebody else has it already, it is the next free one.
function faceOf(user) {
  if (!faces.has(user)) {
    const taken = new Set(faces.values());
    let face = [...user].reduce((sum, letter) => (sum * 31 + letter.codePointAt()) % 9973, 7) % FACES;
    while (taken.has(face) && taken.size < FACES) face = (face + 1) % FACES;
    faces.set(user, face);
  }
  return faces.get(user);
}

function makeAvatar({ user, name }) {
  const avatar = make("span", { className: "avatar", ariaHidden: "true" }, [...name][0]);
  const face = faceOf(user);
  const hue = (face * 150) % 360; // far from that of the number before
  avatar.style.background = `oklch(${face % 2 ? 54 : 42}% .14 ${hue})`;
  return avatar;
}

async function ask(url, options) {
  const headers = { Accept: "application/json" };
  const response = await fetch(url, { headers, ...options }).catch(() => {
    throw new Error("Not sent: the application does not answer.");
  });
  if (response.status === 401) pusher.disconnect();
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function post(url, fields) {
  const body = new URLSearchParams({ user: settings.user, ...fields });
  if (pusher.connection.socket_id) body.set("socket_id", pusher.connection.socket_id);
  return ask(url, { method: "POST", body });
}


// -- What the tab keeps of this room for this user, until somebody signs out here -----------------

const key = `${settings.user} in ${settings.room}`;
const kept = JSON.parse(sessionStorage.getItem(key)) ?? { draft: "", messages: [] };

function keep(changes) {
  if (isOver()) return;
  Object.assign(kept, changes);
  sessionStorage.setItem(key, JSON.stringify(kept));
}

function writeDraft(draft) {
  byId("text").value = draft;
  keep({ draft });
}

function bringBack() {
  for (const message of kept.messages) showMessage(message);
  writeDraft(kept.draft);
  byId("text").addEventListener("input", () => keep({ draft: byId("text").value }));
  byId("sign-out").addEventListener("submit", () => sessionStorage.clear());
}


// -- Messages ------------------------------------------------------------------------------------

const shown = new Set(); // ids: the service repeats the last message when a page connects again

function append(item) {
  const list = byId("messages");
  const box = list.parentElement;
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  list.append(item);
  if (isAtEnd || item.classList.contains("own")) box.scrollTop = box.scrollHeight;
}

function receive(message) {
  if (!shown.has(message.id)) keep({ messages: [...kept.messages, message].slice(-MOST_SHOWN) });
  showMessage(message);
}

function showMessage(message) {
  if (shown.has(message.id)) return;
  shown.add(message.id);
  stoppedTyping(message.user);
  const own = message.user === settings.user;
  const heading = make(
    "p", { className: "who" },
    make("b", {}, make("bdi", {}, own ? "You" : message.name)),
    message.to ? ` to ${message.to} alone ` : " ",
    makeTime(new Date(message.time * 1000)),
  );
  const text = make("p", { className: "text", dir: "auto" }, message.text);
  append(make(
    "li", { className: `message ${own ? "own" : ""} ${message.to ? "note" : ""}` },
    makeAvatar(message), make("div", { className: "bubble" }, heading, text),
  ));
}

function showNotice(...children) {
  append(make("li", { className: "notice" }, ...children));
}

function listenToWriting() {
  const form = byId("write");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.text.value;
    writeDraft("");
    lastTyped = 0;
    try {
      receive(await post(form.action, { text }));
      tell();
    } catch (error) {
      if (!isOver()) tell(error.message);
      writeDraft([text, form.text.value].filter(Boolean).join(" "));
    }
  });
  form.text.addEventListener("input", tellThatIType);
}


// -- Who is here, and who is typing --------------------------------------------------------------

const typing = new Map(); // the id of who types, to the timer that ends it
let lastTyped = 0;

function makePerson({ id, info }) {
  const name = make("bdi", {}, info.name);
  const item = make("li", { id: `person-${id}` }, makeAvatar({ user: id, name: info.name }), name);
  if (id === settings.user) {
    item.append(" (you)");
  } else {
    const button = make("button", { className: "quiet", ariaLabel: `Note to ${info.name}` }, "Note");
    button.addEventListener("click", () => openNote(id, info.name));
    item.append(button);
  }
  return item;
}

// Who uses the keyboard must not lose their place when the list changes.
function changePeople(change) {
  const focused = document.activeElement.closest("#people > li")?.id;
  change(byId("people"));
  if (focused && !document.activeElement.closest("#people")) {
    (byId(focused)?.querySelector("button") ?? byId("people-title")).focus();
  }
  for (const place of document.querySelectorAll(".count")) {
    place.textContent = people.members.count;
  }
}

function listenToPeople() {
  people.bind("pusher:subscription_succeeded", (members) => {
    changePeople((list) => {
      list.replaceChildren(makePerson(members.me));
      members.each((member) => { if (member.id !== settings.user) list.append(makePerson(member)); });
    });
  });
  people.bind("pusher:member_added", (member) => {
    changePeople((list) => list.append(makePerson(member)));
    showNotice(make("bdi", {}, member.info.name), " came in.");
  });
  people.bind("pusher:member_removed", (member) => {
    changePeople(() => byId(`person-${member.id}`)?.remove());
    showNotice(make("bdi", {}, member.info.name), " left.");
    stoppedTyping(member.id);
  });
  // The service says who sent it; what a page says of itself need not be true.
  people.bind("client-typing", (data, { user_id: id }) => {
    if (id === settings.user) return; // in another tab
    clearTimeout(typing.get(id));
    typing.set(id, setTimeout(stoppedTyping, TYPING_SECONDS * 1000, id));
    showTyping();
  });
}

function tellThatIType() {
  const now = Date.now();
  if (now - lastTyped < (TYPING_SECONDS - 1) * 1000) return;
  lastTyped = now;
  people.trigger("client-typing", {});
}

function stoppedTyping(id) {
  clearTimeout(typing.get(id));
  if (typing.delete(id)) showTyping();
}

function showTyping() {
  const names = [...typing.keys()].map((id) => people.members.get(id)?.info.name).filter(Boolean);
  const verb = names.length > 1 ? "are" : "is";
  const text = names.length ? `${names.join(", ")} ${verb} typing…` : "";
  if (byId("typing").textContent !== text) byId("typing").textContent = text;
}


// -- Notes to one user ---------------------------------------------------------------------------

// Each note has a dialog of its own, so that nothing of one can get into another.
function openNote(id, name) {
  const dialog = byId("note").content.firstElementChild.cloneNode(true);
  const form = dialog.querySelector("form");
  const [cancel, send] = form.querySelectorAll("button");
  dialog.querySelector("bdi").textContent = name;
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    // The button that opened it is gone where its person is.
    (byId(`person-${id}`)?.querySelector("button:enabled") ?? byId("text")).focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.text.value;
    send.disabled = true;
    try {
      receive({ ...await post(form.action, { to: id, text }), to: name });
      dialog.close();
    } catch (error) {
      if (dialog.open) form.querySelector("[role=alert]").textContent = error.message;
      else if (!isOver()) tell(`${error.message} Your note to ${name} was: ${text}`);
    }
    send.disabled = false;
  });
  document.body.append(dialog);
  dialog.showModal();
}

function listenToNotes() {
  pusher.user.bind("note", (note) => receive({ ...note, to: "you" }));
}


// -- Webhooks ------------------------------------------------------------------------------------

function showWebhook({ id, time, name, channel, ...fields }) {
  if (shown.has(id)) return;
  shown.add(id);
  const details = Object.entries(fields).map(([key, value]) => `${key}: ${value}`).join(", ");
  const item = make(
    "li", {}, makeTime(new Date(time * 1000)), " ", make("b", {}, name), " ",
    make("code", {}, channel), " ", make("span", {}, details),
  );
  item.dataset.time = time;
  const list = byId("webhooks");
  list.insertBefore(item, [...list.children].find((other) => other.dataset.time <= time) ?? null);
  while (list.children.length > MOST_SHOWN) list.lastElementChild.remove();
}

function listenToWebhooks() {
  const webhooks = pusher.subscribe(settings.channels.webhooks);
  webhooks.bind("webhook", showWebhook);
  // What was told before the page could listen, at first and after each loss of the connection.
  webhooks.bind("pusher:subscription_succeeded", async () => {
    const recent = await ask(settings.recent_webhooks).catch(() => []);
    recent.forEach(showWebhook);
  });
}


// -- The connection ------------------------------------------------------------------------------

const STATES = {
  connecting: "Connecting…",
  connected: "Connected",
  unavailable: "Connection lost. Trying again…",
  failed: "This browser cannot connect.",
  disconnected: "Disconnected",
};

// pusher-js does not connect again by itself after the application has ended the user's connections.
const isOver = () => pusher.connection.state === "disconnected";

function listenToConnection() {
  let wasConnected = false;
  pusher.connection.bind("state_change", ({ current }) => {
    const isLost = wasConnected && current === "connecting";
    byId("connection").textContent = STATES[isLost ? "unavailable" : current];
    byId("connection").dataset.state = isLost ? "unavailable" : current;
    wasConnected ||= current === "connected";
    if (isOver()) {
      sessionStorage.clear();
      closeRoom(byId("signed-out").content.cloneNode(true));
    }
  });
}

// What is in the message box can still be copied.
function closeRoom(reason) {
  tell(reason);
  document.querySelector("dialog")?.close();
  byId("text").readOnly = true;
  for (const button of document.querySelectorAll("main button, .people button")) {
    button.disabled = true;
  }
}

function refuse({ status }) {
  if (status === 401) pusher.disconnect();
  else if (status === 403) closeRoom("This room is closed. Choose another.");
  else closeRoom("This room does not answer. Load the page again.");
}


// -- All of it -----------------------------------------------------------------------------------

let pusher;
let people;

function start() {
  if (typeof Pusher === "undefined") {
    tell("pusher-js could not be loaded. Is there a network?");
    return;
  }
  // The tab's user goes with what pusher-js asks the application.
  const { options } = settings;
  for (const authorisation of [options.channelAuthorization, options.userAuthentication]) {
    authorisation.params = { ...authorisation.params, user: settings.user };
  }
  pusher = new Pusher(settings.key, options);
  listenToConnection();
  pusher.signin();

  people = pusher.subscribe(settings.channels.people);
  listenToPeople();
  const messages = pusher.subscribe(settings.channels.messages);
  messages.bind("message", receive);
  messages.bind("pusher:cache_miss", () => showNotice("Nobody has said anything lately."));
  for (const channel of [people, messages]) channel.bind("pusher:subscription_error", refuse);
  listenToWebhooks();

  bringBack();
  listenToWriting();
  listenToNotes();
}

start();
