"use strict";

// What the channels brought, oldest first.
const told = [];

function subscribe(name) {
  pusher.subscribe(name).bind_global((event, data) => {
    told.push({ channel: name, event, data: JSON.parse(JSON.stringify(data ?? null)) });
  });
}

function find([channel, events]) {
  return told.find((one) => one.channel === channel && events.includes(one.event));
}
