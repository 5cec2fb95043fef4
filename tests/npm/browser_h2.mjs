// A browser on TLS and HTTP/2: browser_h2.mjs URL. Loads the page, its pieces, and talks to an echo over WebSocket. Prints what it has seen as JSON.
import puppeteer from "puppeteer-core";

const [url] = process.argv.slice(2);
const args = ["--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"];
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args, headless: true });
try {
  const page = await browser.newPage();
  await page.goto(url);
  const seen = await page.evaluate(async (address) => {
    const pieces = await Promise.all([...Array(60).keys()].map(async (i) => (await (await fetch(`/piece?${i}`)).text()).length));
    const upload = await (await fetch("/length", { method: "POST", body: new Uint8Array(2000000) })).text();
    const socket = new WebSocket(address.replace("https:", "wss:") + "ws");
    const heard = [];
    await new Promise((resolve, reject) => {
      socket.onopen = () => { socket.send("hello"); socket.send(new Uint8Array(200000)); };
      socket.onerror = () => reject(new Error("the WebSocket failed"));
      socket.onmessage = ({ data }) => { heard.push(typeof data === "string" ? data : data.size); if (heard.length === 2) socket.close(1000, "enough"); };
      socket.onclose = ({ code, reason, wasClean }) => { heard.push(code, reason, wasClean); resolve(); };
    });
    const protocols = performance.getEntries().filter((entry) => "nextHopProtocol" in entry).map((entry) => entry.nextHopProtocol);
    return { pieces, upload, heard, protocols: [...new Set(protocols)], loaded: protocols.length };
  }, url);
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
