"use strict";

// Channels keeps no events for a page that cannot listen: one that is loading, asleep, or without a
// network. So the page fetches what it shows each time that it has begun to listen.

/**
 * Call `load` when a channel brings an event, and when one may have been missed.
 *
 * Call this right after subscribing. `load` fetches and shows the state. It returns a promise, and
 * is called again where that fails. `spread` is in milliseconds.
 */
function keepCurrent(channel, event, load, spread = 5000) {
  let hasListened = false;
  let isLoading = false;
  let isStale = false;

  // When a network comes back, all pages do. At random moments, they do not ask all at once.
  const pause = () => new Promise((done) => setTimeout(done, Math.random() * spread));

  async function update() {
    isStale = true;
    if (isLoading) return; // the answer that is under way may be too old: another one follows
    isLoading = true;
    while (isStale) {
      isStale = false;
      try {
        await load();
      } catch {
        isStale = true;
        await pause();
      }
    }
    isLoading = false;
  }

  channel.bind(event, update);
  channel.bind("pusher:subscription_succeeded", async () => {
    if (hasListened) await pause();
    hasListened = true;
    await update();
  });
}


// A page that shows orders: <ul id="orders" data-url="{{ url_for('shop.orders_as_json') }}"></ul>

const list = document.getElementById("orders");

async function showOrders() {
  const answer = await fetch(list.dataset.url);
  if (!answer.ok) throw new Error(answer.statusText);
  const orders = Object.entries(await answer.json());
  list.replaceChildren(...orders.map(([name, state]) => {
    const item = document.createElement("li");
    item.textContent = `${name}: ${state}`;
    return item;
  }));
}

keepCurrent(pusher.subscribe("orders"), "changed", showOrders);
