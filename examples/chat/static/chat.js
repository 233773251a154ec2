"use strict";

// What only a chat needs: who is typing, notes, the draft, and the end. All else keeps itself up to
// date by the attributes in templates/room.html.

const TYPING_SECONDS = 4;
const typing = new Map(); // the id of who types, to the timer that ends it
let pusher, people, lastTyped = 0;
const byId = (id) => document.getElementById(id);
const { user, room } = document.body.dataset;
const tell = (...problem) => byId("problem").replaceChildren(...problem);
// pusher-js does not connect again by itself after the application has ended the user's connections.
const isOver = () => pusher.connection.state === "disconnected";

async function post(form, fields) {
  const body = new URLSearchParams({ user, ...fields });
  const options = { method: "POST", body, headers: { Accept: "application/json" } };
  const answer = await fetch(form.action, options).catch(() => {
    throw new Error("Not sent: the application does not answer.");
  });
  if (answer.status === 401) pusher.disconnect();
  if (!answer.ok) throw new Error((await answer.json()).error);
}

function writeDraft(draft) {
  byId("text").value = draft;
  if (!isOver()) sessionStorage.setItem(`${user} in ${room}`, draft);
}

function listenToWriting() {
  writeDraft(sessionStorage.getItem(`${user} in ${room}`) ?? "");
  byId("text").addEventListener("input", () => {
    writeDraft(byId("text").value);
    if (Date.now() - lastTyped < (TYPING_SECONDS - 1) * 1000) return;
    lastTyped = Date.now();
    people.trigger("client-typing", {});
  });
  byId("write").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = byId("text").value;
    writeDraft("");
    lastTyped = document.querySelector(".messages").scrollTop = 0; // its end: see the style sheet
    try {
      await post(event.target, { text });
      tell();
    } catch (error) {
      if (!isOver()) tell(error.message);
      writeDraft([text, byId("text").value].filter(Boolean).join(" "));
    }
  });
}

function listenToPeople() {
  const list = byId("people");
  let focused;
  list.addEventListener("focusin", ({ target }) => { focused = target; });
  list.addEventListener("pusher:subscription_succeeded", () => {
    const own = list.querySelector(`[data-pusher-member="${CSS.escape(user)}"]`);
    if (list.firstElementChild !== own) list.prepend(own);
    own.querySelector("button")?.replaceWith("(you)");
  });
  list.addEventListener("pusher:member_removed", ({ detail }) => {
    // Who uses the keyboard must not lose their place.
    if (focused?.isConnected === false && document.activeElement === document.body) byId("people-title").focus();
    showTyping(detail.id, false);
  });
  list.addEventListener("click", ({ target }) => {
    if (target.closest("button")) openNote(target.closest("button"), target.closest("li").dataset.pusherMember);
  });
  // The service says who sent it; what a page says of itself need not be true.
  people.bind("client-typing", (data, { user_id: id }) => id === user || showTyping(id, true));
  byId("messages").addEventListener("pusher:said", ({ detail }) => showTyping(detail.user, false));
}

function showTyping(id, isTyping) {
  clearTimeout(typing.get(id));
  if (isTyping) typing.set(id, setTimeout(showTyping, TYPING_SECONDS * 1000, id, false));
  else if (!typing.delete(id)) return;
  const names = [...typing.keys()].map((one) => people.members.get(one)?.info.name).filter(Boolean);
  const text = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing…` : "";
  if (byId("typing").textContent !== text) byId("typing").textContent = text;
}

// Each note has a dialog of its own, so that nothing of one gets into another.
function openNote(button, to) {
  const { name } = people.members.get(to).info;
  const dialog = byId("note").content.firstElementChild.cloneNode(true);
  const form = dialog.querySelector("form");
  const [cancel, send] = form.querySelectorAll("button");
  dialog.querySelector("bdi").textContent = name;
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    (button.isConnected && !button.disabled ? button : byId("text")).focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.text.value;
    send.disabled = true;
    await post(form, { to, room, text }).then(() => dialog.close(), (error) => {
      if (dialog.open) form.querySelector("[role=alert]").textContent = error.message;
      else if (!isOver()) tell(`${error.message} Your note to ${name} was: ${text}`);
    });
    send.disabled = false;
  });
  document.body.append(dialog);
  dialog.showModal();
}

function listenToConnection() {
  let wasConnected = false;
  pusher.connection.bind("state_change", ({ current }) => {
    const state = wasConnected && current === "connecting" ? "unavailable" : current;
    byId("connection").dataset.state = state;
    byId("connection").textContent = byId("connection").dataset[state];
    wasConnected ||= current === "connected";
    if (isOver()) closeRoom(byId("signed-out").content.cloneNode(true));
  });
  document.addEventListener("pusher:refused", ({ detail: { status } }) => { // a channel, or a fetch
    if (status === 401) pusher.disconnect();
    else closeRoom("This room is closed. Choose another.");
  }, true);
}

// What is in the message box can still be copied.
function closeRoom(reason) {
  if (isOver()) sessionStorage.clear();
  tell(reason);
  document.querySelector("dialog")?.close();
  byId("text").readOnly = true;
  for (const button of document.querySelectorAll("main button, .people button")) button.disabled = true;
}

function start() {
  // The tab's user goes with what pusher-js asks the application. The attributes use this connection.
  const { key, options: text } = document.querySelector("script[data-options]").dataset;
  const options = JSON.parse(text);
  for (const one of [options.channelAuthorization, options.userAuthentication]) one.params = { user };
  pusher = new Pusher(key, options);
  people = pusher.subscribe(byId("people").dataset.pusherMembers);
  listenToConnection();
  listenToPeople();
  listenToWriting();
  byId("sign-out").addEventListener("submit", () => sessionStorage.clear());
}

if (typeof Pusher === "undefined") tell("pusher-js could not be loaded. Is there a network?");
else start();
