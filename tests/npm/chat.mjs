// Two windows of Chromium on the page of examples/websocket-chat: `node chat.mjs ORIGIN` prints what they show.
import puppeteer from "puppeteer-core";

const [origin] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
const windows = [];

async function open(key) {
  const window = await browser.newPage();
  windows.push(window);
  await window.goto(`${origin}/?key=${key}`);
  return window;
}

const shows = (window, selector, text) => window.waitForFunction(
  (where, what) => [...document.querySelectorAll(where)].some((element) => element.textContent.includes(what)), { timeout: 20000 }, selector, text);
const state = (window) => window.$eval("output", (element) => element.textContent);
const say = async (window, text) => {
  await window.type("input", text);
  await window.keyboard.press("Enter");
};

try {
  const ann = await open("ann-key");
  const bob = await open("bob-key");
  await shows(ann, "output", "open");
  await shows(bob, "output", "open");
  console.log("Ann and Bob:", await state(ann), await state(bob));

  await say(ann, "hello <b>Bob</b>");
  await shows(bob, "li", "Ann: ");
  console.log(await bob.$eval("li:last-child", (line) => line.textContent));

  await say(bob, "/who");
  await shows(bob, "li", "gateway: ");
  console.log(await bob.$eval("li:last-child", (line) => line.textContent));

  await bob.evaluate(() => { for (let i = 0; i < 30; i += 1) socket.send(`message ${i}`); });
  await shows(bob, "output", "closed");
  console.log("Bob:", await state(bob));
  console.log("Ann:", await state(ann));

  const nobody = await open("wrong-key");
  await shows(nobody, "output", "closed");
  console.log("nobody:", await state(nobody));
} finally {
  await browser.close();
}
