"use strict";

// What the channels brought, and "user" for what was sent to the signed-in user; oldest first.
const told = [];

function listen(name, source) {
  source.bind_global((event, data) => {
    const copy = JSON.parse(JSON.stringify(data ?? null));
    told.push({ channel: name, event, data: copy, at: performance.now() });
  });
}

function subscribe(name) {
  listen(name, pusher.subscribe(name));
}

function signIn() {
  listen("user", pusher.user);
  pusher.signin();
}

function find([channel, events]) {
  return told.find((one) => one.channel === channel && events.includes(one.event));
}
