--- page: what a browser shows: /?key=ann-key speaks as Ann. What others say is set as text, never as HTML.
local PAGE = [[
<!doctype html>
<title>Chat</title>
<form><input autofocus maxlength="200" placeholder="say something"><output></output></form>
<ul></ul>
<script>
const key = new URLSearchParams(location.search).get("key") ?? "";
const socket = new WebSocket(`${location.origin.replace("http", "ws")}/chat?key=${encodeURIComponent(key)}`);
const [form, input, state, list] = ["form", "input", "output", "ul"].map((name) => document.querySelector(name));
socket.onopen = () => { state.textContent = "open"; };
socket.onclose = ({ code, reason }) => { state.textContent = `closed ${code} ${reason}`; };
socket.onmessage = ({ data }) => {
  const { from, text } = JSON.parse(data);
  const line = document.createElement("li");
  line.textContent = `${from}: ${text}`;
  list.append(line);
};
form.onsubmit = (event) => {
  event.preventDefault();
  socket.send(input.value);
  input.value = "";
};
</script>
]]

return {
  api = 1,
  doc = "The page of the chat.",
  handler = function()
    return tg.respond(200, PAGE, { ["Content-Type"] = "text/html; charset=utf-8" })
  end,
}
