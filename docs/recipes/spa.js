"use strict";

/**
 * Connect a page that is no template: it asks the application for the arguments of pusher-js.
 *
 * `getToken` gives the user's access token. It is called for each authorisation, so that a token
 * may be renewed while the page is open.
 */
async function connect(getToken) {
  const answer = await fetch("/pusher.json");
  if (!answer.ok) throw new Error(`/pusher.json answers ${answer.status}`);
  const { key, options } = await answer.json();
  const headersProvider = () => ({ Authorization: `Bearer ${getToken()}` });
  options.channelAuthorization.headersProvider = headersProvider;
  options.userAuthentication.headersProvider = headersProvider;
  return new Pusher(key, options);
}
