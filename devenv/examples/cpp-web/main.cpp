// A small HTTP server, in C++ with nothing but the standard library and sockets.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

static const std::string GREETING = "hello from cpp-web";

struct Request {
    std::string method;
    std::string path;
};

static Request read_request(int connection) {
    std::string text;
    char piece[1024];
    while (text.find("\r\n\r\n") == std::string::npos && text.size() < 16384) {
        ssize_t length = read(connection, piece, sizeof piece);
        if (length <= 0) {
            break;
        }
        text.append(piece, static_cast<size_t>(length));
    }
    size_t first = text.find(' ');
    size_t second = first == std::string::npos ? first : text.find(' ', first + 1);
    if (second == std::string::npos) {
        return {};
    }
    return {text.substr(0, first), text.substr(first + 1, second - first - 1)};
}

static std::string reply(const std::string &status, const std::string &body) {
    return "HTTP/1.1 " + status + "\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\nConnection: close\r\n\r\n" + body;
}

static std::string answer(const Request &request) {
    if (request.path == "/version") {
        std::string greeting = GREETING + "\n";
        std::string text = reply("200 OK", greeting);
        return text;
    }
    if (request.path == "/") {
        return reply("200 OK", "This is cpp-web.\n");
    }
    return reply("404 Not Found", "not found\n");
}

static void serve(int connection) {
    std::string text = answer(read_request(connection));
    for (size_t done = 0; done < text.size();) {
        ssize_t length = write(connection, text.data() + done, text.size() - done);
        if (length <= 0) {
            break;
        }
        done += static_cast<size_t>(length);
    }
    close(connection);
}

int main() {
    // As the first process of a container it would ignore it.
    std::signal(SIGTERM, [](int) { _exit(0); });
    std::signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(8080);
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    if (bind(listener, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0 || listen(listener, 64) != 0) {
        std::perror("port 8080");
        return 1;
    }
    while (true) {
        int connection = accept(listener, nullptr, nullptr);
        if (connection >= 0) {
            std::thread(serve, connection).detach();
        } else if (errno != EINTR) {
            std::perror("accept");
            return 1;
        }
    }
}
