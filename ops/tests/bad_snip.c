// A snip that is no good, in one of four ways, or nearly; tests of ops/deploy put it into service.
//
// -DFAULT=1  does not start
// -DFAULT=2  starts and is never ready
// -DFAULT=3  is ready, and ends a second after it has told so
// -DFAULT=4  tells that it is ready once, and never again
// -DFAULT=5  is good, but for the second time that it is asked whether it is ready
//
// With -DGOOD_TRIAL as well, it shows only as an instance: under the name of the trial it is ready and stays so.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// How often it has been asked whether it is ready. Other requests, such as of clients, change nothing.
static int asked;

static int is_ready(int fault) {
    return fault != 2 && (fault != 4 || asked == 1) && (fault != 5 || asked != 2);
}

static void answer(int peer, int fault) {
    static const char question[] = "GET /readyz ";
    char request[4096];
    ssize_t bytes = read(peer, request, sizeof request);
    int is_question = bytes >= (ssize_t)strlen(question) && memcmp(request, question, strlen(question)) == 0;
    asked += is_question;
    const char *text = is_ready(fault)
        ? "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"status\":\"ready\"}"
        : "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 21\r\n\r\n{\"status\":\"no store\"}";
    if (bytes > 0)
        (void)!write(peer, text, strlen(text));
    close(peer);
    // From its first answer on, which tells that it is ready: before that it would be one that never was.
    if (fault == 3 && is_question && asked == 1)
        alarm(1);
}

// A setting as the units give it or as the stack does, where the first one counts.
static const char *setting(int argc, char **argv, const char *option, const char *variable) {
    const char *value = getenv(variable);
    for (int i = argc - 1; i > 0; i--)
        if (strncmp(argv[i], option, strlen(option)) == 0)
            value = argv[i] + strlen(option);
    return value;
}

static void serve(const char *listen_address, int fault) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, listen_address + strlen("unix:"), sizeof address.sun_path - 1);
    unlink(address.sun_path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
        exit(1);
    for (;;)
        answer(accept(listener, NULL, NULL), fault);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("snip 9.9.%d\n", FAULT);
        return 0;
    }
    int fault = FAULT;
#ifdef GOOD_TRIAL
    if (strcmp(setting(argc, argv, "--instance-id=", "INSTANCE_ID"), "snip-trial") == 0)
        fault = 0;
#endif
    if (fault == 1) {
        fprintf(stderr, "snip: this version does not start\n");
        return 1;
    }
    serve(setting(argc, argv, "--listen=", "SNIP_LISTEN"), fault);
}
