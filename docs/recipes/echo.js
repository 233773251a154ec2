"use strict";

const { key, options } = document.currentScript.dataset;
const settings = JSON.parse(options);

const echo = new Echo.default({
  ...settings,
  broadcaster: "pusher",
  key,
  // Echo writes its CSRF and bearer tokens into auth.headers, and pusher-js sends those of
  // channelAuthorization. So let both be one.
  auth: settings.channelAuthorization,
});

// The dot says that the name is the whole of it, without a namespace of Laravel's.
echo.private("orders").listen(".changed", ({ name, state }) => {
  const item = document.createElement("li");
  item.textContent = `${name}: ${state}`;
  document.getElementById("orders").append(item);
});
