/*
 * main.c - the command line.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "process/control.h"
#include "process/history.h"
#include "process/master.h"
#include "process/tool.h"
#include "zone/scoreboard.h"

#ifndef TG_PREFIX
#define TG_PREFIX "/usr/local"
#endif
#define TG_VERSION "0.1.0"

#ifdef __SANITIZE_ADDRESS__
/* LuaJIT has an allocator of its own, whose memory the leak checker does not search: what Lua holds would be a leak. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *
__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif

enum { EXIT_USAGE = 2, PLUGIN_DIRS_MAX = 8 };

static const struct tg_command commands[];

static char **command_line;
static char control_path[PATH_MAX];
static const char *plugin_dirs[PLUGIN_DIRS_MAX + 1];

static int
usage_error(const char *command, const char *text)
{
    (void)fprintf(stderr, "tidegate %s: %s\ntry: tidegate %s --help\n", command, text, command);
    return EXIT_USAGE;
}

static int
print_help(const char *name)
{
    for (const struct tg_command *command = commands; command->name != NULL; command++) {
        if (strcmp(command->name, name) == 0) {
            (void)fputs(command->help, stdout);
        }
    }
    return 0;
}

/* Where the gateway is asked for when nobody says: one a user, so that a plain `tidegate reload` finds it. */
static const char *
default_control(void)
{
    const char *set = getenv("TIDEGATE_CONTROL");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (set != NULL && *set != '\0') {
        return set;
    }
    if (geteuid() == 0) {
        (void)snprintf(control_path, sizeof control_path, "/run/tidegate.sock");
    } else if (runtime != NULL && *runtime != '\0') {
        (void)snprintf(control_path, sizeof control_path, "%s/tidegate.sock", runtime);
    } else {
        (void)snprintf(control_path, sizeof control_path, "/tmp/tidegate-%u.sock", (unsigned)geteuid());
    }
    return control_path;
}

/*
 * What an upgrade runs. As it was called, so that a link may point elsewhere by then; one that was found by PATH is
 * known only by where it lies.
 */
static const char *
program_path(void)
{
    static char path[PATH_MAX];
    if (strchr(command_line[0], '/') != NULL) {
        return command_line[0];
    }
    const ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
    path[size > 0 ? size : 0] = '\0';
    return path;
}

static bool
is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Folders that plugins are looked for in: given ones, "plugins" beside the configuration, and the built-in ones. */
static void
find_plugins(const char *config, const char *given)
{
    static char beside[PATH_MAX];
    static char built_in[PATH_MAX];
    unsigned n = 0;
    if (given != NULL) {
        plugin_dirs[n++] = given;
    }
    const char *slash = strrchr(config, '/');
    const int length = slash == NULL ? 0 : (int)(slash - config + 1);
    (void)snprintf(beside, sizeof beside, "%.*splugins", length, config);
    if (is_folder(beside)) {
        plugin_dirs[n++] = beside;
    }
    /* A program in build/release/ belongs to the source tree around it. */
    char self[PATH_MAX];
    const ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    self[size > 0 ? size : 0] = '\0';
    char *build = strstr(self, "/build/");
    if (build != NULL) {
        (void)snprintf(built_in, sizeof built_in, "%.*s/plugins", (int)(build - self), self);
    }
    if (build == NULL || !is_folder(built_in)) {
        (void)snprintf(built_in, sizeof built_in, "%s/share/tidegate/plugins", TG_PREFIX);
    }
    plugin_dirs[n++] = built_in;
    plugin_dirs[n] = NULL;
}

static bool
parse_number(const char *text, unsigned min, unsigned max, unsigned *out)
{
    char *end = NULL;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < min || value > max || *text == '-') {
        return false;
    }
    *out = (unsigned)value;
    return true;
}

enum {
    OPT_CONTROL = 256,
    OPT_PLUGINS,
    OPT_WATCHDOG,
    OPT_DRAIN,
    OPT_WATCH,
    OPT_USER,
    OPT_PID_FILE,
    OPT_CORE_DUMPS,
    OPT_UPGRADE,
    OPT_STATE,
    OPT_HISTORY,
    OPT_LAST_GOOD
};

static const struct option run_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"workers", required_argument, NULL, 'w'},
    {"control", required_argument, NULL, OPT_CONTROL},
    {"plugins", required_argument, NULL, OPT_PLUGINS},
    {"watchdog", required_argument, NULL, OPT_WATCHDOG},
    {"drain-timeout", required_argument, NULL, OPT_DRAIN},
    {"watch", no_argument, NULL, OPT_WATCH},
    {"user", required_argument, NULL, OPT_USER},
    {"pid-file", required_argument, NULL, OPT_PID_FILE},
    {"core-dumps", no_argument, NULL, OPT_CORE_DUMPS},
    {"upgrade-timeout", required_argument, NULL, OPT_UPGRADE},
    {"state", required_argument, NULL, OPT_STATE},
    {"history", required_argument, NULL, OPT_HISTORY},
    {"last-good", no_argument, NULL, OPT_LAST_GOOD},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static unsigned
default_workers(void)
{
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > TG_WORKERS_MAX ? TG_WORKERS_MAX : (unsigned)cores;
}

/* Options with a value that has to be understood; false with a message. */
static bool
parse_value(const char *name, int option, struct tg_options *options)
{
    struct tg_err err = {0};
    bool ok = true;
    switch (option) {
    case 'w':
        ok = parse_number(optarg, 1, TG_WORKERS_MAX, &options->workers);
        break;
    case OPT_WATCHDOG:
        ok = parse_number(optarg, 1, 3600, &options->watchdog);
        break;
    case OPT_DRAIN:
        ok = parse_number(optarg, 0, 86400, &options->drain_timeout);
        break;
    case OPT_UPGRADE:
        ok = parse_number(optarg, 1, 3600, &options->succession.upgrade_timeout);
        break;
    case OPT_HISTORY:
        ok = parse_number(optarg, 1, TG_HISTORY_MAX, &options->history);
        break;
    case OPT_USER:
        if (tg_privilege_find(&options->privilege, optarg, &err) == TG_OK) {
            return true;
        }
        (void)usage_error(name, err.text);
        return false;
    default:
        return true;
    }
    if (!ok) {
        (void)usage_error(name, "a number is out of range");
    }
    return ok;
}

/* 0: go on; otherwise the exit status is one less than the result. */
static int
parse_run_options(const char *name, int argc, char **argv, struct tg_options *options, const char **plugins)
{
    int option;
    while ((option = getopt_long(argc, argv, "c:w:h", run_options, NULL)) != -1) {
        switch (option) {
        case 'c':
            options->source.entry = optarg;
            break;
        case OPT_CONTROL:
            options->succession.control = optarg;
            break;
        case OPT_PLUGINS:
            *plugins = optarg;
            break;
        case OPT_WATCH:
            options->watch = true;
            break;
        case OPT_PID_FILE:
            options->succession.pid_file = optarg;
            break;
        case OPT_CORE_DUMPS:
            options->privilege.core_dumps = true;
            break;
        case OPT_STATE:
            options->state = optarg;
            break;
        case OPT_LAST_GOOD:
            options->last_good = true;
            break;
        case 'h':
            return print_help(name) + 1;
        case '?':
            return EXIT_USAGE + 1;
        default:
            if (!parse_value(name, option, options)) {
                return EXIT_USAGE + 1;
            }
        }
    }
    if (optind < argc && options->source.entry == NULL) {
        options->source.entry = argv[optind++];
    }
    if (optind < argc) {
        return usage_error(name, "too many arguments") + 1;
    }
    if (options->source.entry == NULL) {
        return usage_error(name, "a configuration is needed: --config FILE") + 1;
    }
    if (options->last_good && options->state == NULL) {
        return usage_error(name, "--last-good needs the folder that it is in: --state DIR") + 1;
    }
    return 0;
}

static int
command_run(int argc, char **argv)
{
    const char *plugins = NULL;
    struct tg_options options = {.succession = {.control = default_control(),
                                                .program = program_path(),
                                                .argv = command_line,
                                                .upgrade_timeout = 30},
                                 .workers = default_workers(),
                                 .watchdog = 3,
                                 .drain_timeout = 30,
                                 .history = TG_HISTORY_DEFAULT};
    const int stop = parse_run_options("run", argc, argv, &options, &plugins);
    if (stop != 0) {
        return stop - 1;
    }
    find_plugins(options.source.entry, plugins);
    options.source.plugin_dirs = plugin_dirs;
    options.source.privilege = &options.privilege;
    return tg_master_run(&options);
}

static int
command_check(int argc, char **argv)
{
    const char *plugins = NULL;
    struct tg_err err = {0};
    struct tg_options options = {.workers = 1};
    const int stop = parse_run_options("check", argc, argv, &options, &plugins);
    if (stop != 0) {
        return stop - 1;
    }
    find_plugins(options.source.entry, plugins);
    options.source.plugin_dirs = plugin_dirs;
    options.source.privilege = &options.privilege;
    struct tg_generation *generation = tg_generation_compile(&options.source, &err);
    if (generation == NULL) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    (void)printf("generation %s is valid\n", generation->id);
    tg_generation_free(generation);
    return 0;
}

/* Commands that the running master carries out. `argument`: how many may follow the options. */
static int
ask(const char *name, const char *line, int arguments, int argc, char **argv)
{
    static const struct option options[] = {{"control", required_argument, NULL, OPT_CONTROL},
                                            {"drain", no_argument, NULL, 'd'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *control = default_control();
    bool drain = false;
    bool json = false;
    char command[512];
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            return print_help(name);
        }
        if (option == OPT_CONTROL) {
            control = optarg;
        } else if (option == 'd' && strcmp(name, "stop") == 0) {
            drain = true;
        } else if (option == 'j' && (strcmp(name, "status") == 0 || strcmp(name, "history") == 0)) {
            json = true;
        } else if (option == 'j' && strcmp(name, "upstream") == 0) {
            line = "upstreams";
        } else {
            return EXIT_USAGE;
        }
    }
    if (argc - optind > arguments) {
        return usage_error(name, "too many arguments");
    }
    int n = snprintf(command, sizeof command, "%s%s%s", drain ? "drain" : line, arguments > 0 ? " " : "",
                     json ? " --json" : "");
    for (int i = optind; i < argc && n >= 0 && (size_t)n < sizeof command; i++) {
        n += snprintf(command + n, sizeof command - (size_t)n, "%s%s", i > optind ? " " : "", argv[i]);
    }
    if (n < 0 || (size_t)n >= sizeof command || strchr(command, '\n') != NULL) {
        return usage_error(name, "an argument is too long");
    }
    return tg_control_ask(control, command);
}

/* Options of a trial go to the master as they are; it says what is wrong with them. */
static int
command_reload(int argc, char **argv)
{
    static const struct option options[] = {{"control", required_argument, NULL, OPT_CONTROL},
                                            {"canary", required_argument, NULL, 'c'},
                                            {"shadow", optional_argument, NULL, 's'},
                                            {"watch", required_argument, NULL, 'w'},
                                            {"by", required_argument, NULL, 'b'},
                                            {"max-errors", required_argument, NULL, 'e'},
                                            {"max-latency", required_argument, NULL, 'l'},
                                            {"least", required_argument, NULL, 'n'},
                                            {"detach", no_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *control = default_control();
    char command[512] = "reload";
    size_t n = strlen(command);
    int option;
    int index = 0;
    while ((option = getopt_long(argc, argv, "h", options, &index)) != -1) {
        if (option == 'h') {
            return print_help("reload");
        }
        if (option == '?') {
            return EXIT_USAGE;
        }
        if (option == OPT_CONTROL) {
            control = optarg;
            continue;
        }
        const char *value =
            option == 's' && optarg == NULL && optind < argc && argv[optind][0] != '-' ? argv[optind++] : optarg;
        const int more = snprintf(command + n, sizeof command - n, " --%s%s%s", options[index].name,
                                  value == NULL ? "" : "=", value == NULL ? "" : value);
        n += more > 0 ? (size_t)more : 0;
        if (n >= sizeof command || strchr(command, '\n') != NULL) {
            return usage_error("reload", "an argument is too long");
        }
    }
    return optind < argc ? usage_error("reload", "too many arguments") : tg_control_ask(control, command);
}

static int
command_canary(int argc, char **argv)
{
    return ask("canary", "canary", 1, argc, argv);
}

static int
command_rollback(int argc, char **argv)
{
    return ask("rollback", "rollback", 1, argc, argv);
}

static int
command_status(int argc, char **argv)
{
    return ask("status", "status", 0, argc, argv);
}

static int
command_history(int argc, char **argv)
{
    return ask("history", "history", 0, argc, argv);
}

static int
command_token(int argc, char **argv)
{
    return ask("token", "token", 0, argc, argv);
}

static int
command_route(int argc, char **argv)
{
    return ask("route", "route", 2, argc, argv);
}

static int
command_upstream(int argc, char **argv)
{
    return ask("upstream", "upstream", 3, argc, argv);
}

static int
command_stop(int argc, char **argv)
{
    return ask("stop", "stop", 0, argc, argv);
}

static int
command_upgrade(int argc, char **argv)
{
    return ask("upgrade", "upgrade", 0, argc, argv);
}

static int
command_version(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        return print_help("version");
    }
    (void)printf("tidegate %s\n", TG_VERSION);
    return 0;
}

static int
command_tool(int argc, char **argv)
{
    const struct tg_tool tool = {plugin_dirs, default_control(), TG_VERSION, commands};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return print_help(argv[0]);
        }
    }
    find_plugins("", NULL);
    return tg_tool_run(argv[0], &tool, argc - 1, argv + 1);
}

static const struct tg_command commands[] = {
    {"run", command_run,
     "usage: tidegate run [--config] FILE [options]\n"
     "Runs the gateway in the foreground.\n"
     "  -c, --config FILE      the configuration (.lua, .yaml or .json)\n"
     "  -w, --workers N        processes that serve (default: one a core)\n"
     "      --watch            reload when a file of the configuration is saved\n"
     "      --plugins DIR      look for plugins here first, then in plugins/ beside FILE, then among the built-in "
     "ones\n"
     "      --control PATH     control socket (default: $TIDEGATE_CONTROL, /run/tidegate.sock for root)\n"
     "      --watchdog S       kill a worker that has not moved for S seconds (default 3)\n"
     "      --drain-timeout S  how long requests in work may take after SIGQUIT or an upgrade (default 30)\n"
     "      --user NAME[:GROUP]  whom the workers, and the child that validates, become when root starts the gateway\n"
     "                         (default: nobody else; the master stays root, to bind low ports at a reload)\n"
     "      --pid-file PATH    holds the number of the master\n"
     "      --upgrade-timeout S  how long the new master of an upgrade may take to be ready (default 30)\n"
     "      --state DIR        keep the generations that were live in this folder (nobody else's; it is made), over\n"
     "                         restarts and upgrades: see tidegate history, rollback, diff\n"
     "      --history N        of these, and in memory, the last N (default 10, at most 50)\n"
     "      --last-good        start from the newest of them when the configuration is refused\n"
     "      --core-dumps       a crash may write a core (default: none, it would hold keys)\n"
     "Signals: TERM, INT stop; QUIT finishes what is in work first; HUP reloads; USR1 opens log files anew;\n"
     "USR2 upgrades (see: tidegate upgrade --help).\n"
     "Exit status: 0 ended as asked; 1 the configuration or the start failed; 2 wrong usage.\n"},
    {"check", command_check,
     "usage: tidegate check [--config] FILE [--plugins DIR] [--user NAME[:GROUP]]\n"
     "Loads and validates the configuration and every plugin it uses, and starts nothing.\n"
     "Exit status: 0 valid; 1 not valid, all errors on standard error; 2 wrong usage.\n"},
    {"reload", command_reload,
     "usage: tidegate reload [--canary SHARE%] [--shadow [SHARE%]] [--watch TIME] [--by client|header:NAME]\n"
     "                       [--control PATH]\n"
     "Loads the configuration anew. All workers change to it, or none does.\n"
     "  --canary 5%         tries it on this share of the requests first, and waits for the outcome\n"
     "  --shadow [5%]       it answers nothing: for this share of the requests (default 100%) it is said what it "
     "would\n"
     "                      have done, and compared; after --watch it is left, and the report printed\n"
     "  --watch 60s         for so long; then it is live, or the old one goes on as soon as the new one is worse\n"
     "  --by header:NAME    one value of this field is always on one side; without it, one client address is\n"
     "  --max-errors 1%     so many more of its requests may fail, or its plugins raise, than on the old one\n"
     "  --max-latency 150%  of the old one's 95th percentile that it may reach, and 10 ms more\n"
     "  --least N           requests; with fewer it is not made live (default 0)\n"
     "  --detach            does not wait (see: tidegate status, tidegate canary)\n"
     "Exit status: 0 live, or its time in shadow is over; 1 refused, the old generation goes on; 2 wrong usage;\n"
     "3 no gateway answers.\n"},
    {"canary", command_canary,
     "usage: tidegate canary promote|abort [--control PATH]\n"
     "Makes the generation on trial, or in shadow, live at once, or ends its trial.\n"
     "Exit status: 0; 1 none is on trial; 2 wrong usage; 3 no gateway answers.\n"},
    {"rollback", command_rollback,
     "usage: tidegate rollback [ID] [--control PATH]\n"
     "Returns to the generation before, or to the one whose id begins with ID (see: tidegate status).\n"
     "A reload, trial or upgrade under way ends first, and is all that ends where a trial does and no ID is given.\n"
     "Exit status: as reload.\n"},
    {"status", command_status,
     "usage: tidegate status [--json] [--control PATH]\n"
     "Prints the generations, the workers, how a trial goes, and why the last reload was refused, if it was.\n"
     "Exit status: 0; 2 wrong usage; 3 no gateway answers.\n"},
    {"history", command_history,
     "usage: tidegate history [--json] [--control PATH]\n"
     "Prints the generations that are kept: id, when each was committed, who asked for it, and what it changed;\n"
     "and what those would have done that were in shadow (see: tidegate reload).\n"
     "Exit status: 0; 2 wrong usage; 3 no gateway answers.\n"},
    {"token", command_token,
     "usage: tidegate token [--control PATH]\n"
     "Prints the token of the admin interface, which is made when it is first asked for.\n"
     "Exit status: 0; 1 it cannot be made; 2 wrong usage; 3 no gateway answers.\n"},
    {"route", command_route,
     "usage: tidegate route [NAME [open|close]] [--control PATH]\n"
     "Prints the routes that have a circuit breaker or a bulkhead, or opens a breaker and closes it again.\n"
     "Exit status: 0; 1 there is no such route; 2 wrong usage; 3 no gateway answers.\n"},
    {"routes", command_tool,
     "usage: tidegate routes [--json] [--control PATH]\n"
     "Prints all routes: what each matches, where it leads, its plugins, and what was counted of it.\n"
     "Exit status: 0; 2 wrong usage; 3 no gateway answers.\n"},
    {"failures", command_tool,
     "usage: tidegate failures [--route NAME] [--limit N] [--json] [--control PATH]\n"
     "Prints the last requests that failed or were slow, newest first.\n"
     "  --route NAME  of this route alone\n"
     "  --limit N     at most so many (default 50)\n"
     "Exit status: 0; 2 wrong usage; 3 no gateway answers.\n"},
    {"tail", command_tool,
     "usage: tidegate tail [--route NAME] [--status DIGITS] [--path PART] [--count N] [--json] [--control PATH]\n"
     "Prints requests as they end, of all workers, until it is interrupted.\n"
     "  --route NAME     of this route alone\n"
     "  --status DIGITS  whose status begins so: 5, or 404\n"
     "  --path PART      whose path has this in it\n"
     "  --count N        ends after so many\n"
     "  --json           an object a line\n"
     "Exit status: 0; 2 wrong usage; 3 no gateway answers.\n"},
    {"trace", command_tool,
     "usage: tidegate trace [--route NAME] [--status DIGITS] [--path PART] [--count N] [--seconds N] [--json]\n"
     "                      [--control PATH]\n"
     "Tells what happens to the next requests, in order and with times: plugins, attempts, calls of plugins.\n"
     "  --route NAME     of this route alone\n"
     "  --status DIGITS  whose status begins so: 5, or 404\n"
     "  --path PART      whose path has this in it\n"
     "  --count N        so many (default 1)\n"
     "  --seconds N      waits for so long (default 60, at most 3600)\n"
     "  --json           an object a line, with times in seconds\n"
     "Requests that have begun before are not told of, nor are those of the admin interface.\n"
     "Exit status: 0; 1 fewer have come, or others are being traced; 2 wrong usage; 3 no gateway answers.\n"},
    {"top", command_tool,
     "usage: tidegate top [--interval S] [--once] [--json] [--control PATH]\n"
     "Shows the traffic of now: rates and latencies by route, plugins, workers; anew every few seconds.\n"
     "  --interval S  what the rates are taken over (default 2)\n"
     "  --once        after one interval, and no more; also when the output is no terminal\n"
     "Exit status: 0; 2 wrong usage; 3 no gateway answers.\n"},
    {"profile", command_tool,
     "usage: tidegate profile [--seconds N] [--worker N] [--control PATH]\n"
     "Prints where the processor time of a worker goes: folded stacks of Lua and C and their samples, 200 a second.\n"
     "  --seconds N  for so long (default 10, at most 50)\n"
     "  --worker N   of this one (default 0)\n"
     "Functions of C stand behind those of Lua that have called them, or behind (core). What has no name, such as a\n"
     "static function of a library, is shown as its [file]; what LuaJIT and the C library do for Lua counts as the\n"
     "function of Lua, and for the core LuaJIT is one line. It costs nothing while it is off.\n"
     "Exit status: 0; 1 it cannot be taken; 2 wrong usage; 3 no gateway answers.\n"},
    {"upstream", command_upstream,
     "usage: tidegate upstream [NAME [up|down|drain PEER | open|close]] [--json] [--control PATH]\n"
     "Prints the upstreams and their peers, or takes a peer out and in again.\n"
     "  down PEER    it gets no more requests; what is in work goes on\n"
     "  drain PEER   the same, but for clients that a cookie binds to it\n"
     "  up PEER      it gets requests again; its failures, ejections and its breaker are forgotten\n"
     "  open, close  its circuit breaker: nothing goes to the upstream; all does\n"
     "That holds for all workers, and is kept across reloads and upgrades.\n"
     "Exit status: 0; 1 there is no such upstream or peer; 2 wrong usage; 3 no gateway answers.\n"},
    {"stop", command_stop,
     "usage: tidegate stop [--drain] [--control PATH]\n"
     "Ends the gateway at once; with --drain when the requests in work are answered.\n"
     "Exit status: 0; 2 wrong usage; 3 no gateway answers.\n"},
    {"upgrade", command_upgrade,
     "usage: tidegate upgrade [--control PATH]\n"
     "Runs the program at the gateway's path anew, with the same arguments, and moves over to it.\n"
     "The new master gets the listening sockets, the dictionaries, the control socket and the pid file.\n"
     "When its workers run, the old one finishes what is in work and ends. A new one that fails changes nothing.\n"
     "Exit status: 0 the new one serves; 1 the old one goes on; 2 wrong usage; 3 no gateway answers.\n"},
    {"test", command_tool,
     "usage: tidegate test [FILE.spec.lua ...]\n"
     "Runs specs (default: plugins/*.spec.lua), each against real gateways on free ports.\n"
     "Exit status: 0 all passed; 1 some failed; 2 wrong usage.\n"},
    {"doc", command_tool,
     "usage: tidegate doc [NAME] [--table] [--man]\n"
     "Prints what a plugin does, its fields and its example; without a name, the list.\n"
     "  --table  the list as Markdown\n"
     "  --man    the manual page of this program, for man(1)\n"
     "Exit status: 0; 1 there is no such plugin.\n"},
    {"completion", command_tool,
     "usage: tidegate completion bash|zsh\n"
     "Prints a script for the shell that completes commands and options: source <(tidegate completion bash).\n"
     "Exit status: 0; 2 wrong usage.\n"},
    {"explain", command_tool,
     "usage: tidegate explain [--config FILE | --generation ID] [--listen NAME] [--plugins DIR] [--control PATH]\n"
     "                        [--run] [--brief] [--json] REQUESTS\n"
     "Tells what a configuration would do with a request, and sends nothing: route, near misses, uses, upstream.\n"
     "  REQUESTS         a file with a request as text (an editor's, or what curl -v prints), several divided by ###,\n"
     "                   or a line of JSON each, with method, host and path, as access logs have them; - for stdin\n"
     "  --config FILE    default: gateway.lua; of a generation the name of its first file\n"
     "  --generation ID  one that the gateway at --control PATH keeps (see: tidegate history)\n"
     "  --brief          without near misses, which take time where routes are many\n"
     "  --run            plugins are run, too, as far as they ask nobody and keep nothing, and it is told what they\n"
     "                   answer and change: of the request, and of the response that the line of JSON has, as its\n"
     "                   status, or as response: {status, headers}\n"
     "  --salt TEXT      values of credentials are told as digests with it, to compare two runs, and not as ***\n"
     "Exit status: 0; 1 the configuration or the file cannot be read; 2 wrong usage.\n"},
    {"diff", command_tool,
     "usage: tidegate diff A [B] [--control PATH]\n"
     "       tidegate diff --traffic FILE A B [--listen NAME] [--plugins DIR] [--control PATH] [--json]\n"
     "Prints what generation B, or the live one, changes of the files of generation A: a unified diff. With "
     "--traffic,\n"
     "runs recorded requests through the plugins of two configurations, tells what would differ, and sends nothing.\n"
     "  --traffic FILE  requests as `tidegate explain` takes them: access logs in JSON, what /tail gives, or texts;\n"
     "                  what clients get is compared where the response was recorded\n"
     "  A, B            ids of generations that the gateway at PATH keeps (see: tidegate history); with --traffic\n"
     "                  also files\n"
     "Exit status: 0, with --traffic none differs; 1 there is no such generation, or with --traffic some differ; 2 "
     "wrong\n"
     "usage, or something cannot be read; 3 no gateway answers.\n"},
    {"version", command_version, "usage: tidegate version\nPrints the version.\n"},
    {NULL, NULL, NULL},
};

static void
print_overview(FILE *out)
{
    (void)fputs("usage: tidegate COMMAND [options]\n\ncommands:\n", out);
    for (const struct tg_command *command = commands; command->name != NULL; command++) {
        const char *summary = strchr(command->help, '\n') + 1;
        (void)fprintf(out, "  %-10s %.*s\n", command->name, (int)(strchr(summary, '\n') - summary), summary);
    }
    (void)fputs("\ntidegate COMMAND --help says more.\n", out);
}

int
main(int argc, char **argv)
{
    command_line = argv;
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_overview(stdout);
        return 0;
    }
    for (const struct tg_command *command = commands; command->name != NULL; command++) {
        if (strcmp(command->name, argv[1]) == 0) {
            return command->run(argc - 1, argv + 1);
        }
    }
    (void)fprintf(stderr, "tidegate: unknown command \"%s\"\n", argv[1]);
    print_overview(stderr);
    return EXIT_USAGE;
}
