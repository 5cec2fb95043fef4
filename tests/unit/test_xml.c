#include "unit.h"

#include "base/mem.h"
#include "base/xml.h"

static enum tg_rc
read_text(const char *xml, struct tg_json_text *text, struct tg_err *err)
{
    text->n = 0;
    return tg_xml_to_json(xml, strlen(xml), text, err);
}

static void
a_document_becomes_a_sequence(void **state)
{
    struct tg_json_text text = {.max = 10000};
    struct tg_err err;
    (void)state;
    assert_int_equal(read_text("<a x='1&lt;'>t&amp;<![CDATA[<u>]]><b/>\n</a>", &text, &err), TG_OK);
    assert_int_equal(tg_json_put(&text, "", 1), TG_OK);
    assert_string_equal(text.p, "[\"sa\",\"ax\",\"=1<\",\"tt&<u>\",\"sb\",\"e\",\"t\\n\",\"e\"]");
    tg_json_text_clear(&text, 0);
}

static void
what_is_refused_has_a_place(void **state)
{
    static const struct {
        const char *xml;
        const char *message;
    } table[] = {
        {"<a>\n<b></a>", "2:6: mismatched tag"},
        {"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "1:40: a document type is refused"},
        {"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "1:14: a document type is refused"},
        {"", "1:1: no element found"},
        {"<a/><b/>", "1:5: junk after document element"},
    };
    struct tg_json_text text = {.max = 10000};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_err err;
        assert_int_equal(read_text(table[i].xml, &text, &err), TG_EPROTOCOL);
        assert_string_equal(strchr(err.text, ' '), strchr(table[i].message, ' '));
        assert_int_equal(err.text[0], table[i].message[0]);
    }
    tg_json_text_clear(&text, 0);
}

static void
sizes_and_memory_are_bounded(void **state)
{
    struct tg_json_text text = {.max = 20};
    struct tg_err err;
    (void)state;
    assert_int_equal(read_text("<a>0123456789abcdef0123456789</a>", &text, &err), TG_ELIMIT);
    tg_mem_fail_at(1);
    assert_int_equal(read_text("<a>0123</a>", &text, &err), TG_ENOMEM);
    tg_mem_fail_at(0);
    tg_json_text_clear(&text, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_becomes_a_sequence),
        cmocka_unit_test(what_is_refused_has_a_place),
        cmocka_unit_test(sizes_and_memory_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
