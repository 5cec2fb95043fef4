// `node tokens.mjs`: keys and tokens of each algorithm, as `jose` makes them, right ones and wrong ones, as JSON.
import * as jose from "jose";

const now = Math.floor(Date.now() / 1000);
const secrets = { HS256: 32, HS384: 48, HS512: 64 };
const algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", ...Object.keys(secrets)];
const good = { sub: "ann", iss: "https://id.test", aud: ["api", "other"], exp: now + 600, nbf: now - 10, iat: now - 10 };
const made = {};

const rsa = {}; // these take seconds to make
const pair = async (alg, which) => {
  if (/^[RP]S/.test(alg)) return (rsa[which] ??= await jose.generateKeyPair(alg, { extractable: true }));
  if (!secrets[alg]) return jose.generateKeyPair(alg, { extractable: true });
  const key = await jose.generateSecret(alg, { extractable: true });
  return { publicKey: key, privateKey: key };
};

for (const alg of algorithms) {
  const { publicKey, privateKey } = await pair(alg, "own");
  const other = await pair(alg, "other");
  const sign = (claims = {}, header = {}, key = privateKey) => {
    const whole = Object.fromEntries(Object.entries({ ...good, ...claims }).filter(([, value]) => value !== null));
    return new jose.SignJWT(whole).setProtectedHeader({ alg, kid: "one", typ: "JWT", ...header }).sign(key, { crit: { exp: true } });
  };
  const detached = new jose.CompactSign(new TextEncoder().encode(JSON.stringify(good))).setProtectedHeader({ alg, kid: "one", b64: true, crit: ["b64"] });
  const jwk = await jose.exportJWK(publicKey);
  made[alg] = {
    jwk: { ...jwk, kid: "one", alg, use: "sig" },
    right: [await sign(), await sign({ aud: "api" }), await sign({ exp: now - 5 }), await sign({ nbf: now + 5 }), await sign({}, { typ: "at+jwt" })],
    wrong: {
      expired: await sign({ exp: now - 3600 }), early: await sign({ nbf: now + 3600 }), future: await sign({ iat: now + 3600 }), issuer: await sign({ iss: "https://evil.test" }),
      audience: await sign({ aud: ["other"] }), "no audience": await sign({ aud: null }), "no expiry": await sign({ exp: null }),
      "no subject": await sign({ sub: null }), "other key": await sign({}, {}, other.privateKey), "other kid": await sign({}, { kid: "two" }),
      "own key": await sign({}, { jwk }), "key elsewhere": await sign({}, { jku: "https://evil.test/keys" }), critical: await detached.sign(privateKey),
      none: new jose.UnsecuredJWT(good).encode(),
      // The public key as a shared secret, for who takes the algorithm from the token.
      confused: await new jose.SignJWT(good).setProtectedHeader({ alg: "HS256", kid: "one" })
        .sign(new TextEncoder().encode(secrets[alg] ? "k".repeat(64) : await jose.exportSPKI(publicKey))),
    },
  };
}
console.log(JSON.stringify(made));
