#include "base/xml.h"

#include <expat.h>
#include <limits.h>
#include <string.h>

#include "base/mem.h"

struct reading {
    XML_Parser parser;
    struct tg_json_text *text;
    enum tg_rc rc;
    const char *what;
    unsigned depth;
    bool in_text; /* expat gives a text in pieces: they are one */
    struct tg_json_text piece;
};

static void
stop(struct reading *r, enum tg_rc rc, const char *what)
{
    if (r->rc == TG_OK) {
        r->rc = rc;
        r->what = what;
        (void)XML_StopParser(r->parser, XML_FALSE);
    }
}

/* `kind` and the string behind it, as one string of the array. */
static void
put(struct reading *r, char kind, const char *p, size_t n)
{
    enum tg_rc rc = tg_json_put(r->text, r->text->n == 1 ? "" : ",", r->text->n == 1 ? 0 : 1);
    tg_json_text_clear(&r->piece, r->piece.capacity);
    rc = rc == TG_OK ? tg_json_put(&r->piece, &kind, 1) : rc;
    rc = rc == TG_OK ? tg_json_put(&r->piece, p, n) : rc;
    rc = rc == TG_OK ? tg_json_put_string(r->text, r->piece.p, r->piece.n) : rc;
    if (rc != TG_OK) {
        stop(r, rc, "too large");
    }
}

static void
end_text(struct reading *r)
{
    if (!r->in_text) {
        return;
    }
    r->in_text = false;
    enum tg_rc rc = tg_json_put(r->text, ",", 1);
    rc = rc == TG_OK ? tg_json_put_string(r->text, r->piece.p, r->piece.n) : rc;
    if (rc != TG_OK) {
        stop(r, rc, "too large");
    }
}

static void
on_start(void *arg, const char *name, const char **attributes)
{
    struct reading *r = arg;
    end_text(r);
    if (++r->depth > TG_XML_DEPTH_MAX) {
        stop(r, TG_ELIMIT, "more than 32 levels");
        return;
    }
    put(r, 's', name, strlen(name));
    for (size_t i = 0; attributes[i] != NULL; i += 2) {
        put(r, 'a', attributes[i], strlen(attributes[i]));
        put(r, '=', attributes[i + 1], strlen(attributes[i + 1]));
    }
}

static void
on_end(void *arg, const char *name)
{
    struct reading *r = arg;
    (void)name;
    end_text(r);
    r->depth--;
    put(r, 'e', "", 0);
}

static void
on_text(void *arg, const char *p, int n)
{
    struct reading *r = arg;
    enum tg_rc rc = TG_OK;
    if (!r->in_text) {
        r->in_text = true;
        tg_json_text_clear(&r->piece, r->piece.capacity);
        rc = tg_json_put(&r->piece, "t", 1);
    }
    rc = rc == TG_OK ? tg_json_put(&r->piece, p, (size_t)n) : rc;
    if (rc != TG_OK) {
        stop(r, rc, "too large");
    }
}

static void
on_doctype(void *arg, const char *name, const char *system, const char *public, int internal)
{
    (void)name;
    (void)system;
    (void)public;
    (void)internal;
    stop(arg, TG_EPROTOCOL, "a document type is refused");
}

static enum tg_rc
parse(struct reading *r, const char *p, size_t n, struct tg_err *err)
{
    XML_SetUserData(r->parser, r);
    XML_SetElementHandler(r->parser, on_start, on_end);
    XML_SetCharacterDataHandler(r->parser, on_text);
    XML_SetStartDoctypeDeclHandler(r->parser, on_doctype);
    const enum tg_rc rc = tg_json_put(r->text, "[", 1);
    if (rc != TG_OK) {
        return rc;
    }
    const bool whole = XML_Parse(r->parser, p, (int)n, XML_TRUE) == XML_STATUS_OK;
    if (whole && r->rc == TG_OK) {
        return tg_json_put(r->text, "]", 1);
    }
    const char *what = r->rc != TG_OK ? r->what : XML_ErrorString(XML_GetErrorCode(r->parser));
    const enum tg_rc why = r->rc != TG_OK ? r->rc : TG_EPROTOCOL;
    return tg_err_set(err, XML_GetErrorCode(r->parser) == XML_ERROR_NO_MEMORY ? TG_ENOMEM : why, "%lu:%lu: %s",
                      (unsigned long)XML_GetCurrentLineNumber(r->parser),
                      (unsigned long)XML_GetCurrentColumnNumber(r->parser) + 1, what);
}

enum tg_rc
tg_xml_to_json(const char *p, size_t n, struct tg_json_text *text, struct tg_err *err)
{
    struct reading r = {.parser = XML_ParserCreate(NULL), .text = text, .piece = {.max = text->max}};
    if (r.parser == NULL) {
        return TG_ENOMEM;
    }
    const enum tg_rc rc = n > INT_MAX ? TG_ELIMIT : parse(&r, p, n, err);
    XML_ParserFree(r.parser);
    tg_json_text_clear(&r.piece, 0);
    return rc;
}
