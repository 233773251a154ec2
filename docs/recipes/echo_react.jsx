import { configureEcho, useEcho } from "@laravel/echo-react";
import { useState } from "react";
import { createRoot } from "react-dom/client";

const root = document.getElementById("orders");
const settings = JSON.parse(root.dataset.options);
configureEcho({
  ...settings,
  broadcaster: "pusher",
  key: root.dataset.key,
  auth: settings.channelAuthorization,
});

function Orders() {
  const [orders, setOrders] = useState([]);
  useEcho("orders", ".changed", (order) => setOrders((before) => [...before, order]));
  return <ul>{orders.map(({ name, state }) => <li key={name}>{name}: {state}</li>)}</ul>;
}

createRoot(root).render(<Orders />);
