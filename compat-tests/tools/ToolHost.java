package sordini.compat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Apache Kafka's command line tools inside one JVM, because starting a JVM for each command
 * takes longer than the command. Requests and replies are JSON, one per line, on stdin and stdout:
 *
 * <pre>
 *   {"op":"run",  "id":1, "class":"...", "args":[...], "stdin":"..."}   reply when the tool has ended
 *   {"op":"peek", "id":2, "of":1}                                       output of command 1 so far
 *   {"op":"stop", "id":3, "of":1}                                       run its shutdown hooks, as SIGTERM,
 *                                                                       or interrupt it if it has none
 * </pre>
 *
 * Each command has its own streams and shutdown hooks. The threads that it starts inherit them, so
 * that commands can run concurrently.
 */
public final class ToolHost {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final InheritableThreadLocal<Command> CURRENT = new InheritableThreadLocal<>();
    private static final Map<Long, Command> COMMANDS = new ConcurrentHashMap<>();
    private static final PrintStream REPLIES =
        new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

    /** Thrown instead of ending the process. It is an Error, so that tools do not catch it. */
    private static final class Exited extends Error {
        private static final long serialVersionUID = 1L;

        Exited() {
            super("exit", null, false, false);
        }
    }

    private static final class Command {
        final ByteArrayOutputStream out = new ByteArrayOutputStream();
        final ByteArrayOutputStream err = new ByteArrayOutputStream();
        final List<Runnable> hooks = new ArrayList<>();
        Thread thread;
        final InputStream in;
        volatile boolean muted;
        Integer exit;

        Command(String stdin) {
            in = new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8));
        }

        /** Records the exit code and mutes the command: a process prints nothing after its exit. */
        synchronized void exit(int code) {
            if (exit == null) {
                exit = code;
                muted = true;
            }
        }

        /** Returns whether there were any. */
        boolean runHooks() {
            List<Runnable> pending;
            synchronized (hooks) {
                pending = new ArrayList<>(hooks);
                hooks.clear();
            }
            muted = false;
            pending.forEach(Runnable::run);
            muted = true;
            return !pending.isEmpty();
        }

        ObjectNode reply(long id) {
            ObjectNode reply = JSON.createObjectNode().put("id", id);
            reply.put("stdout", out.toString(StandardCharsets.UTF_8));
            reply.put("stderr", err.toString(StandardCharsets.UTF_8));
            return exit == null ? reply.putNull("exit") : reply.put("exit", exit);
        }
    }

    private static final class CommandOutput extends OutputStream {
        private final boolean isError;

        CommandOutput(boolean isError) {
            this.isError = isError;
        }

        private OutputStream target() {
            Command command = CURRENT.get();
            if (command == null || command.muted) {
                return OutputStream.nullOutputStream();
            }
            return isError ? command.err : command.out;
        }

        @Override
        public void write(int b) throws IOException {
            target().write(b);
        }

        @Override
        public void write(byte[] bytes, int offset, int length) throws IOException {
            target().write(bytes, offset, length);
        }
    }

    private static final class CommandInput extends InputStream {
        @Override
        public int read() throws IOException {
            return CURRENT.get().in.read();
        }

        @Override
        public int read(byte[] bytes, int offset, int length) throws IOException {
            return CURRENT.get().in.read(bytes, offset, length);
        }

        @Override
        public int available() throws IOException {
            return CURRENT.get().in.available();
        }
    }

    public static void main(String[] args) throws IOException {
        BufferedReader requests = new BufferedReader(
            new InputStreamReader(new FileInputStream(FileDescriptor.in), StandardCharsets.UTF_8));
        System.setIn(new CommandInput());
        System.setOut(new PrintStream(new CommandOutput(false), true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new CommandOutput(true), true, StandardCharsets.UTF_8));
        Exit.setExitProcedure((code, message) -> {
            CURRENT.get().exit(code);
            throw new Exited();
        });
        Exit.setHaltProcedure((code, message) -> {
            CURRENT.get().exit(code);
            throw new Exited();
        });
        Exit.setShutdownHookAdder((name, hook) -> {
            Command command = CURRENT.get();
            synchronized (command.hooks) {
                command.hooks.add(hook);
            }
        });
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            handle(JSON.readTree(line));
        }
        System.exit(0);
    }

    private static void handle(JsonNode request) {
        long id = request.get("id").asLong();
        switch (request.get("op").asText()) {
            case "run" -> start(id, request);
            case "peek" -> send(COMMANDS.get(request.get("of").asLong()).reply(id));
            case "stop" -> stop(id, COMMANDS.get(request.get("of").asLong()));
            default -> throw new IllegalArgumentException("unknown op in " + request);
        }
    }

    private static void start(long id, JsonNode request) {
        Command command = new Command(request.path("stdin").asText(""));
        COMMANDS.put(id, command);
        Thread thread = new Thread(() -> {
            CURRENT.set(command);
            run(command, request);
            send(command.reply(id));
        }, "command-" + id);
        command.thread = thread;
        thread.setDaemon(true);
        thread.start();
    }

    private static void run(Command command, JsonNode request) {
        List<String> args = new ArrayList<>();
        request.get("args").forEach(arg -> args.add(arg.asText()));
        try {
            Class<?> tool = Class.forName(request.get("class").asText());
            tool.getMethod("main", String[].class).invoke(null, (Object) args.toArray(new String[0]));
            command.runHooks();
            command.exit(0);
        } catch (InvocationTargetException e) {
            if (!(e.getCause() instanceof Exited)) {
                System.err.print("Exception in thread \"main\" ");
                e.getCause().printStackTrace(System.err);
                command.exit(1);
            }
            command.runHooks();
        } catch (ReflectiveOperationException e) {
            e.printStackTrace(System.err);
            command.exit(127);
        }
    }

    private static void stop(long id, Command command) {
        Thread thread = new Thread(() -> {
            CURRENT.set(command);
            if (!command.runHooks()) {
                command.thread.interrupt();
            }
            send(JSON.createObjectNode().put("id", id));
        }, "stop-" + id);
        thread.setDaemon(true);
        thread.start();
    }

    private static synchronized void send(ObjectNode reply) {
        REPLIES.println(reply);
    }
}
