import { configureEcho, useEcho } from "@laravel/echo-vue";
import { createApp, h, ref } from "vue";

const root = document.getElementById("orders");
const settings = JSON.parse(root.dataset.options);
configureEcho({
  ...settings,
  broadcaster: "pusher",
  key: root.dataset.key,
  auth: settings.channelAuthorization,
});

createApp({
  setup() {
    const orders = ref([]);
    useEcho("orders", ".changed", (order) => orders.value.push(order));
    return () => h("ul", orders.value.map(({ name, state }) => h("li", `${name}: ${state}`)));
  },
}).mount(root);
