-- Keys and tokens of the RFCs, and what a key must refuse. Blanks in the long texts are only for the eye.
local c = tg.crypto

local function join(text) return (text:gsub("%s", "")) end

local jwks = {
  hs = [[
    {"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}
  ]],
  rs = [[
    {"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_Yp
    RPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_
    I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB","d":"Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpX
    yWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V
    51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjncz
    T0QU91p1DhOVRuOopznQ","p":"4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcm
    nPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc","q":"uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7z
    FYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc","dp":"BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnL
    QwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0","dq
    ":"h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS
    1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU","qi":"IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w
    93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U"}
  ]],
  p256 = [[
    {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQm
    L-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}
  ]],
  p521 = [[
    {"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx
    _RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2","d":"AY5pb7A0UFiB3RELSD64fTLOSV_jazdF7fLYyuTw8lOfRhWg6Y6rUrPAxer
    EzgdRhajnu0ferB0d53vM9mE15j2C"}
  ]],
  bilbo = [[
    {"kty":"RSA","kid":"bilbo.baggins@hobbiton.example","use":"sig","n":"n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWT
    DvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHp
    PI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw","e":"AQ
    AB","d":"bWUC9B-EFRIo8kpGfh0ZuyGPvMNKvYWNtB_ikiH9k20eT-O1q_I78eiZkpXxXQ0UTEs2LsNRS-8uJbvQ-A1irkwMSMkK1J3XTGgdrhCku9gRldY7sNA_AKZGh-Q661_42rI
    NLRCe8W-nZ34ui_qOfkLnK9QWDDqpaIsA-bMwWWSDFu2MUBYwkHTMEzLYGqOe04noqeq1hExBTHBOBdkMXiuFhUq1BU6l-DqEiWxqg82sXt2h-LMnT3046AOYJoRioz75tSUQfGCshWT
    BnP5uDjd18kKhyv07lhfSJdrPdM5Plyl21hsFf4L_mHCuoFau7gdsPfHPxxjVOcOpBrQzwQ","p":"3Slxg_DwTXJcb6095RoXygQCAZ5RnAvZlno1yhHtnUex_fp7AZ_9nRaO7HX_-S
    FfGQeutao2TDjDAWU4Vupk8rw9JR0AzZ0N2fvuIAmr_WCsmGpeNqQnev1T7IyEsnh8UMt-n5CafhkikzhEsrmndH6LxOrvRJlsPp6Zv8bUq0k","q":"uKE2dh-cTf6ERF4k4e_jy78G
    fPYUIaUyoSSJuBzp3Cubk3OCqs6grT8bR_cu0Dm1MZwWmtdqDyI95HrUeq3MP15vMMON8lHTeZu2lmKvwqW7anV5UzhM1iZ7z4yMkuUwFWoBvyY898EXvRD-hdqRxHlSqAZ192zB3pVF
    J0s7pFc","dp":"B8PVvXkvJrj2L-GYQ7v3y9r6Kw5g9SahXBwsWUzp19TVlgI-YV85q1NIb1rxQtD-IsXXR3-TanevuRPRt5OBOdiMGQp8pbt26gljYfKU_E9xn-RULHz0-ed9E9gXL
    KD4VGngpz-PfQ_q29pk5xWHoJp009Qf1HvChixRX59ehik","dq":"CLDmDGduhylc9o7r84rEUVn7pzQ6PF83Y-iBZx5NT-TpnOZKF1pErAMVeKzFEl41DlHHqqBLSM0W1sOFbwTxYW
    ZDm6sI6og5iTbwQGIC3gnJKbi_7k_vJgGHwHxgPaX2PnvP-zyEkDERuf-ry4c_Z11Cq9AqC2yeL6kdKT1cYF8","qi":"3PiqvXQN0zwMeE-sBvZgi289XP9XCQF3VWqPzMKnIgQp7_T
    ugo6-NZBKCQsMf3HaEGBjTVJs_jcK8-TRXvaKe-7ZMaQj8VfBdYkssbu0NKDDhjJ-GtiseaDVWt7dcH0cfwxgFUHpQh7FoCrjFJ6h6ZEpMF6xmujs4qMpPz8aaI4"}
  ]],
  bilbo521 = [[
    {"kty":"EC","kid":"bilbo.baggins@hobbiton.example","use":"sig","crv":"P-521","x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5Rk
    TKqjqvjyekWF-7ytDyRXYgCF5cj0Kt","y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1","d":"AAhRON2r
    9cqXX1hg-RoI6R1tX5p2rUAYdmpHZoC1XNM56KtscrX6zbKipQrCW9CGZH3T4ubpnoTKLDYJ_fF3_rJt"}
  ]],
  shared = [[
    {"kty":"oct","kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037","use":"sig","alg":"HS256","k":"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"}
  ]],
  ed = [[ {"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"} ]],
}

local tokens = {
  { "RFC 7515, A.1", "HS256", "hs", [[
    eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjf
    tJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk
  ]] },
  { "RFC 7515, A.2", "RS256", "rs", [[
    eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EG
    rhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6x
    BArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5A
    XLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw
  ]] },
  { "RFC 7515, A.3", "ES256", "p256", [[
    eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOy
    KAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q
  ]] },
  { "RFC 7515, A.4", "ES512", "p521", [[
    eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2Y
    BJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn
  ]] },
  { "RFC 7520, 4.1", "RS256", "bilbo", [[
    eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXI
    gZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN
    3ZXB0IG9mZiB0by4.MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4
    JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U1
    2podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg
  ]] },
  { "RFC 7520, 4.2", "PS384", "bilbo", [[
    eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXI
    gZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN
    3ZXB0IG9mZiB0by4.cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbX
    UvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2
    _jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw
  ]] },
  { "RFC 7520, 4.3", "ES512", "bilbo521", [[
    eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXI
    gZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN
    3ZXB0IG9mZiB0by4.AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-k
    vAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2
  ]] },
  { "RFC 7520, 4.4", "HS256", "shared", [[
    eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V
    0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h
    0IGJlIHN3ZXB0IG9mZiB0by4.s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0
  ]] },
  { "RFC 8037, A.4", "EdDSA", "ed", [[
    eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0
    KAg
  ]] },
}

local function key_of(name)
  return assert(c.key(assert(tg.json.decode(jwks[name]:gsub("%s", "")))))
end

local function without_secret(name)
  local jwk = assert(tg.json.decode(join(jwks[name])))
  for _, member in ipairs { "d", "p", "q", "dp", "dq", "qi" } do jwk[member] = nil end
  return jwk
end

local function fails(code, value, err)
  expect(value):is_nil()
  expect(err and err.code):equals(code)
end

local function raises_here(f, part)
  local ok, err = pcall(f)
  expect(ok):equals(false)
  expect(err):matches "crypto-keys.spec.lua:"
  expect(err):matches(part)
end

local all = { "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512" }
local serves = { rs = "[RP]S", p256 = "^ES256", p521 = "^ES512", bilbo = "[RP]S", bilbo521 = "^ES512", ed = "^EdDSA", hs = "^HS", shared = "^HS256" }

describe("crypto keys", function()
  it("verify the tokens of the RFCs, and none that was changed", function()
    for _, vector in ipairs(tokens) do
      local data, text = join(vector[4]):match "^(.*)%.([^.]*)$"
      local signature = c.unbase64url(text)
      local key = key_of(vector[3])
      expect(key:verify(vector[2], data, signature)):is_true()
      expect(key:verify(vector[2], data, signature)):is_true() -- again, with what the first call has set up
      expect(key:verify(vector[2], data .. "x", signature)):equals(false)
      for _, at in ipairs { 1, math.floor(#signature / 2), #signature } do
        local changed = signature:sub(1, at - 1) .. string.char(bit.bxor(signature:byte(at), 1)) .. signature:sub(at + 1)
        expect(key:verify(vector[2], data, changed)):equals(false)
      end
      expect(key:verify(vector[2], data, signature .. "x")):equals(false)
      expect(key:verify(vector[2], data, signature:sub(1, -2))):equals(false)
      expect(key:verify(vector[2], data, "")):equals(false)
    end
  end)

  it("sign what they verify, also with the public part alone", function()
    for name, pattern in pairs(serves) do
      local key = key_of(name)
      local public = key.kind ~= "oct" and c.key(without_secret(name)) or key
      for _, alg in ipairs(all) do
        if alg:find(pattern) then
          if key.kind ~= "oct" then fails("key", public:sign(alg, "data")) end
          local signature = assert(key:sign(alg, "data"))
          expect(public:verify(alg, "data", signature)):is_true()
          expect(public:verify(alg, "date", signature)):equals(false)
        end
      end
    end
  end)

  it("sign as the RFCs do, where a signature is the same each time", function()
    for _, vector in ipairs(tokens) do
      local data, text = join(vector[4]):match "^(.*)%.([^.]*)$"
      if not vector[2]:find "^[EP]S" then expect(c.base64url(key_of(vector[3]):sign(vector[2], data))):equals(text) end
    end
  end)

  it("serve the algorithms of their kind and curve, and no others", function()
    for name, pattern in pairs(serves) do
      local key = key_of(name)
      for _, alg in ipairs(all) do
        if not alg:find(pattern) then
          fails("algorithm", key:verify(alg, "data", ("x"):rep(64)))
          fails("algorithm", key:sign(alg, "data"))
        end
      end
      for _, alg in ipairs { "none", "", "hs256", "RS1", "HS256 ", "eddsa", "__index", "kind" } do
        fails("algorithm", key:verify(alg, "data", ""))
        fails("algorithm", key:sign(alg, "data"))
      end
    end
  end)

  it("are never taken for a shared secret", function()
    -- The classical forgery: HMAC with the text of the public key.
    local pem_like = join(jwks.rs)
    local forged = c.hmac("sha256", pem_like, "data")
    fails("algorithm", c.key(without_secret "rs"):verify("HS256", "data", forged))
  end)

  it("refuse signatures of zeros", function()
    expect(key_of("p256"):verify("ES256", "data", ("\0"):rep(64))):equals(false)
    expect(key_of("p521"):verify("ES512", "data", ("\0"):rep(132))):equals(false)
    expect(key_of("ed"):verify("EdDSA", "data", ("\0"):rep(64))):equals(false)
    expect(key_of("rs"):verify("RS256", "data", ("\0"):rep(256))):equals(false)
  end)

  it("keep to what the JWK says they are for", function()
    local function with(more)
      local jwk = without_secret "p256"
      for name, value in pairs(more) do jwk[name] = value end
      return assert(c.key(jwk))
    end
    local signature = key_of("p256"):sign("ES256", "data")
    expect(with({ alg = "ES256", use = "sig", key_ops = { "verify" } }):verify("ES256", "data", signature)):is_true()
    fails("algorithm", with({ alg = "RS256" }):verify("ES256", "data", signature))
    fails("algorithm", with({ alg = "ECDH-ES" }):verify("ES256", "data", signature))
    fails("algorithm", with({ use = "enc" }):verify("ES256", "data", signature))
    fails("algorithm", with({ key_ops = { "sign" } }):verify("ES256", "data", signature))
    fails("algorithm", with({ key_ops = {} }):verify("ES256", "data", signature))
  end)

  it("have secrets as long as the digest, unless it is said otherwise", function()
    local jwk = { kty = "oct", k = c.base64url(("k"):rep(47)) }
    expect(#c.key(jwk):sign("HS256", "data")):equals(32)
    fails("algorithm", c.key(jwk):sign("HS384", "data"))
    fails("algorithm", c.key(jwk):verify("HS384", "data", c.hmac("sha384", ("k"):rep(47), "data")))
    expect(c.key(jwk, { short = true }):verify("HS384", "data", c.hmac("sha384", ("k"):rep(47), "data"))):is_true()
    fails("key", c.key { kty = "oct", k = "" })
  end)

  it("have the thumbprint of RFC 7638", function()
    local key = assert(c.key { kty = "RSA", e = "AQAB", alg = "RS256", kid = "2011-04-29", n = join [[
      0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W
      -5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08q
      NLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw
    ]] })
    expect(key:thumbprint()):equals "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    expect(key_of("ed"):thumbprint()):equals "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" -- RFC 8037, A.3
    expect(key_of("p256"):thumbprint()):equals(c.key(without_secret "p256"):thumbprint())
    expect(#key_of("hs"):thumbprint()):equals(43)
  end)

  it("say what they are, and nothing that is secret", function()
    local key = key_of "bilbo"
    expect({ key.kind, key.bits, key.private, key.use, key.kid }):equals { "RSA", 2048, true, "sig", "bilbo.baggins@hobbiton.example" }
    expect(tostring(key)):equals "key: RSA 2048 bits, private"
    expect(tostring(key_of "p521")):equals "key: EC P-521, private"
    expect(tostring(key_of "ed")):equals "key: Ed25519, private"
    expect(tostring(key_of "hs")):equals "key: oct 512 bits, private"
    expect(key_of("p256").curve):equals "P-256"
    expect(next(key)):is_nil()
    expect(key.d):is_nil()
    expect(key.operations):is_nil()
    expect(getmetatable(key)):equals(false)
    expect(key:jwk()):equals { kty = "RSA", e = "AQAB", n = without_secret("bilbo").n, kid = "bilbo.baggins@hobbiton.example", use = "sig" }
    expect(key_of("p521"):jwk()):equals(without_secret "p521")
    expect(key_of("ed"):jwk()):equals(without_secret "ed")
    expect(key_of("hs"):jwk()):is_nil()
    raises_here(function() key.kind = "oct" end, "cannot be changed")
  end)

  it("cannot be made what they are not", function()
    local key = c.key(without_secret "rs")
    rawset(key, "kind", "oct")
    fails("algorithm", key:verify("HS256", "data", ("x"):rep(32)))
  end)
end)

describe("crypto keys that come in", function()
  local function broken(name, member, value)
    local jwk = assert(tg.json.decode(join(jwks[name])))
    jwk[member] = value
    return c.key(jwk)
  end

  it("are refused with numbers that are missing, malformed or do not belong together", function()
    fails("key", broken("rs", "n", nil))
    fails("key", broken("rs", "e", nil))
    fails("key", broken("rs", "e", "AQ")) -- 1
    fails("key", broken("rs", "e", "Ag")) -- 2
    fails("key", broken("rs", "e", c.base64url(("\255"):rep(9))))
    fails("key", broken("rs", "n", "AQAB"))
    fails("key", broken("rs", "p", nil))
    fails("key", broken("rs", "d", nil))
    fails("key", broken("rs", "d", 7))
    fails("key", broken("rs", "d", "AQ=="))
    fails("key", broken("rs", "oth", {}))
    fails("key", broken("rs", "n", c.base64url(("\255"):rep(1025))))
    fails("key", broken("bilbo", "n", without_secret("rs").n))
    fails("key", broken("p256", "x", nil))
    fails("key", broken("p256", "y", without_secret("p256").x))
    fails("key", broken("p256", "crv", "P-521"))
    fails("key", broken("p256", "crv", "secp256k1"))
    fails("key", broken("p256", "crv", nil))
    fails("key", broken("p256", "d", c.base64url(("\1"):rep(32))))
    fails("key", broken("p256", "d", c.base64url(("\255"):rep(32))))
    fails("key", broken("p256", "x", "AA" .. without_secret("p256").x))
    fails("key", broken("ed", "d", c.base64url(("\1"):rep(32))))
    fails("key", broken("ed", "x", "AQ"))
    fails("key", broken("ed", "crv", "X25519"))
    fails("key", broken("hs", "k", nil))
    fails("key", broken("hs", "k", "="))
    fails("key", broken("hs", "alg", 1))
    fails("key", broken("hs", "kid", {}))
    fails("key", broken("hs", "key_ops", "verify"))
    fails("key", c.key { kty = "none" })
    fails("key", c.key {})
  end)

  it("may be private by d alone", function()
    local jwk = without_secret "rs"
    jwk.d = tg.json.decode(join(jwks.rs)).d
    local key = assert(c.key(jwk))
    expect(c.key(without_secret "rs"):verify("PS256", "data", key:sign("PS256", "data"))):is_true()
  end)

  it("are read from PEM and DER", function()
    local pem = [[
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
]]
    local key = assert(c.key(pem))
    expect(tostring(key)):equals "key: Ed25519, private"
    expect(key:thumbprint()):equals(c.key(c.unbase64((pem:gsub("%-+[^\n]*\n", ""):gsub("\n", "")))):thumbprint())
    local public = assert(c.key(assert(c.unbase64 "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="))) -- RFC 8410, 10.1
    expect(tostring(public)):equals "key: Ed25519, public"
    expect(public:verify("EdDSA", "data", key:sign("EdDSA", "data"))):is_true()
  end)

  it("are refused when they are no key", function()
    for _, text in ipairs { "", "x", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", "\48\3\2\1\0", ("-"):rep(70000), "\0" } do
      fails("key", c.key(text))
    end
    raises_here(function() c.key() end, "PEM, DER or a JWK")
    raises_here(function() c.key(7) end, "PEM, DER or a JWK")
    raises_here(function() c.key("x", "password") end, "table of options")
    raises_here(function() c.key("x", { password = 1 }) end, "its password as a string")
  end)

  it("have methods that need strings", function()
    local key = key_of "hs"
    raises_here(function() key:verify(nil, "data", "") end, "verify needs a string")
    raises_here(function() key:verify("HS256", 1, "") end, "verify needs a string")
    raises_here(function() key:verify("HS256", "data") end, "verify needs a string")
    raises_here(function() key:sign("HS256") end, "sign needs a string")
    raises_here(function() key:sign({}, "data") end, "sign needs a string")
    raises_here(function() key.verify("HS256", "data", "") end, "key:verify(...)")
    raises_here(function() key.sign({}, "HS256", "data") end, "key:sign(...)")
    raises_here(function() key.thumbprint {} end, "key:thumbprint(...)")
  end)
end)
