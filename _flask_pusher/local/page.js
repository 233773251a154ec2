new EventSource("/page/stream").addEventListener("happened", message => {
  for (const one of JSON.parse(message.data)) {
    const item = document.createElement("li");
    item.textContent = `${one.kind}: ${one.text}`;
    document.getElementById("log").append(item);
  }
});
