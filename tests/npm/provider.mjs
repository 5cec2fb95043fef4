// The provider of openid for the tests: `node provider.mjs PORT ORIGIN [SECONDS [CERT KEY]]`. Logs in whoever names himself, on its own forms;
// access tokens live for SECONDS (default 600). ORIGIN is where the gateway is. With the files CERT and KEY it speaks TLS, as `localhost`.
// `CLIENT_JWK`, a variable of its environment, is the public key of the client `signer`.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import https from "node:https";
import { exportJWK, generateKeyPair } from "jose";
import Provider, { errors } from "oidc-provider";

const [port, origin, seconds = "600", cert, certKey] = process.argv.slice(2);
const issuer = cert ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;
const API = "https://api.example.com";
const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";

const { privateKey } = await generateKeyPair("RS256", { extractable: true });
const key = { ...(await exportJWK(privateKey)), use: "sig", alg: "RS256", kid: "one" };

const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  cookies: { keys: [randomBytes(16).toString("hex")] },
  clients: [
    {
      client_id: "gateway", client_secret: "a secret:of the gateway", redirect_uris: [`${origin}/callback`],
      post_logout_redirect_uris: [`${origin}/`, `${origin}/bye`], response_types: ["code"],
      grant_types: ["authorization_code", "refresh_token", "client_credentials", EXCHANGE],
    },
    ...(process.env.CLIENT_JWK ? [{
      client_id: "signer", token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [JSON.parse(process.env.CLIENT_JWK)] },
      token_endpoint_auth_signing_alg: "ES256", redirect_uris: [`${origin}/callback`], response_types: ["code"],
      grant_types: ["authorization_code", "client_credentials"], require_pushed_authorization_requests: true,
    }] : []),
  ],
  pkce: { methods: ["S256"], required: () => true },
  claims: { openid: ["sub", "groups", "email"] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com`, groups: id === "ann" ? ["staff"] : [] }) }),
  ttl: { AccessToken: Number(seconds), ClientCredentials: Number(seconds), IdToken: 3600, Session: 3600, Grant: 3600, Interaction: 3600 },
  rotateRefreshToken: true,
  scopes: ["openid", "offline_access", "read"],
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (ctx, client, oneOf) => oneOf,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: "read write", audience: API, accessTokenTTL: Number(seconds), accessTokenFormat: "jwt" }),
    },
  },
});

// RFC 8693: whoever holds an access token of somebody gets one for the service `audience`, in his name.
provider.registerGrantType(EXCHANGE, async (ctx, next) => {
  const { subject_token: subject, audience } = ctx.oidc.params;
  const held = await provider.AccessToken.find(subject ?? "");
  if (!held || held.isExpired) throw new errors.InvalidGrant("the subject token is unknown");
  ctx.body = { access_token: `${held.accountId}-for-${audience}-${randomBytes(4).toString("hex")}`, token_type: "Bearer", expires_in: Number(seconds),
    issued_token_type: "urn:ietf:params:oauth:token-type:access_token" };
  await next();
}, ["subject_token", "subject_token_type", "audience", "scope", "requested_token_type"]);

// What it was asked, for the tests.
let asked = {};
provider.use(async (ctx, next) => {
  if (ctx.path === "/asked") {
    ctx.body = asked;
    return;
  }
  await next();
  if (ctx.path === "/token" && ctx.method === "POST") {
    const grant = ctx.oidc?.params?.grant_type ?? "unknown";
    asked = { ...asked, [grant]: (asked[grant] ?? 0) + 1 };
  }
});

const ready = () => console.log("ready");
const server = cert
  ? https.createServer({ cert: readFileSync(cert), key: readFileSync(certKey) }, provider.callback()).listen(Number(port), "127.0.0.1", ready)
  : provider.listen(Number(port), "127.0.0.1", ready);
process.on("SIGTERM", () => {
  server.close();
  process.exit(0);
});
