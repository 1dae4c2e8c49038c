import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;

/** Tells its version. */
public final class Web {
    private static final String GREETING = "hello from java-web";

    public static void main(String[] arguments) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.createContext("/version", Web::answer);
        server.start();
    }

    private static void answer(HttpExchange exchange) throws IOException {
        byte[] body = (GREETING + "\n").getBytes(StandardCharsets.UTF_8);
        int length = body.length;
        exchange.sendResponseHeaders(200, length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}
