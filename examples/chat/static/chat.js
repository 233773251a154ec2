"use strict";

const TYPING_SECONDS = 4;
const MOST_WEBHOOKS = 100;
const settings = JSON.parse(document.getElementById("settings").textContent);

const byId = (id) => document.getElementById(id);
const tell = (problem) => { byId("problem").textContent = problem; };

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

function makeAvatar({ user, name }) {
  const avatar = make("span", { className: "avatar", ariaHidden: "true" }, [...name][0]);
  const hue = [...user].reduce((sum, character) => (sum * 31 + character.codePointAt()) % 360, 7);
  avatar.style.setProperty("--hue", hue);
  return avatar;
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

function showMessage(message, { about = "", note = false } = {}) {
  if (shown.has(message.id)) return;
  shown.add(message.id);
  stoppedTyping(message.user);
  const own = message.user === settings.user;
  const heading = make(
    "p", { className: "who" },
    make("b", {}, make("bdi", {}, own ? "You" : message.name)), about, " ",
    makeTime(new Date(message.time * 1000)),
  );
  const text = make("p", { className: "text", dir: "auto" }, message.text);
  append(make(
    "li", { className: `message ${own ? "own" : ""} ${note ? "note" : ""}` },
    makeAvatar(message), make("div", { className: "bubble" }, heading, text),
  ));
}

function showNotice(...children) {
  append(make("li", { className: "notice" }, ...children));
}

async function post(url, fields) {
  const body = new URLSearchParams({ user: settings.user, ...fields });
  if (pusher.connection.socket_id) body.set("socket_id", pusher.connection.socket_id);
  const headers = { Accept: "application/json" };
  const response = await fetch(url, { method: "POST", body, headers }).catch(() => {
    throw new Error("Not sent: the application does not answer.");
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function listenToWriting() {
  const form = byId("write");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.text.value;
    form.text.value = "";
    lastTyped = 0;
    try {
      showMessage(await post(form.action, { text }));
      tell("");
    } catch (error) {
      tell(error.message);
      form.text.value ||= text;
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

function addPerson(member) {
  byId("people").append(makePerson(member));
}

function count() {
  for (const place of document.querySelectorAll(".count")) {
    place.textContent = people.members.count;
  }
}

function listenToPeople() {
  people.bind("pusher:subscription_succeeded", (members) => {
    byId("people").replaceChildren(makePerson(members.me));
    members.each((member) => { if (member.id !== settings.user) addPerson(member); });
    count();
  });
  people.bind("pusher:member_added", (member) => {
    addPerson(member);
    showNotice(make("bdi", {}, member.info.name), " came in.");
    count();
  });
  people.bind("pusher:member_removed", (member) => {
    byId(`person-${member.id}`)?.remove();
    showNotice(make("bdi", {}, member.info.name), " left.");
    stoppedTyping(member.id);
    count();
  });
  // The service says who sent it; what a page says of itself need not be true.
  people.bind("client-typing", (data, { user_id: id }) => {
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

function openNote(id, name) {
  const dialog = byId("note");
  dialog.dataset.to = id;
  byId("note-name").textContent = name;
  dialog.querySelector("[role=alert]").textContent = "";
  dialog.showModal();
  byId("note-text").focus();
}

function listenToNotes() {
  const dialog = byId("note");
  const form = dialog.querySelector("form");
  dialog.querySelector("[type=button]").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const note = await post(form.action, { to: dialog.dataset.to, text: form.text.value });
      showMessage(note, { about: ` to ${byId("note-name").textContent} alone`, note: true });
      form.reset();
      dialog.close();
    } catch (error) {
      dialog.querySelector("[role=alert]").textContent = error.message;
    }
  });
  pusher.user.bind("note", (note) => showMessage(note, { about: " to you alone", note: true }));
}


// -- Webhooks ------------------------------------------------------------------------------------

function showWebhook({ name, channel, ...fields }) {
  const details = Object.entries(fields).map(([key, value]) => `${key}: ${value}`).join(", ");
  const list = byId("webhooks");
  list.prepend(make(
    "li", {}, makeTime(new Date()), " ", make("b", {}, name), " ",
    make("code", {}, channel), " ", make("span", {}, details),
  ));
  while (list.children.length > MOST_WEBHOOKS) list.lastElementChild.remove();
}


// -- The connection ------------------------------------------------------------------------------

const STATES = {
  connecting: "Connecting…",
  connected: "Connected",
  unavailable: "Connection lost. Trying again…",
  failed: "This browser cannot connect.",
  disconnected: "Disconnected. Sign in again.",
};

function listenToConnection() {
  let wasConnected = false;
  pusher.connection.bind("state_change", ({ current }) => {
    const isLost = wasConnected && current === "connecting";
    byId("connection").textContent = STATES[isLost ? "unavailable" : current];
    byId("connection").dataset.state = isLost ? "unavailable" : current;
    wasConnected ||= current === "connected";
  });
}

function refuse({ status }) {
  const reasons = { 401: "You signed out. Sign in again.", 403: "This room is closed. Choose another." };
  tell(reasons[status] ?? "This room does not answer. Load the page again.");
  byId("text").disabled = true;
  byId("write").querySelector("button").disabled = true;
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
  messages.bind("message", (message) => showMessage(message));
  messages.bind("pusher:cache_miss", () => showNotice("Nobody has said anything lately."));
  for (const channel of [people, messages]) channel.bind("pusher:subscription_error", refuse);
  pusher.subscribe(settings.channels.webhooks).bind("webhook", showWebhook);

  listenToWriting();
  listenToNotes();
}

start();
