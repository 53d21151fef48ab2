package sordini.compat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.google.re2j.Pattern;
import com.google.re2j.PatternSyntaxException;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/**
 * Shows what RE2/J, with which Apache Kafka compiles the patterns of clients, makes of patterns.
 * Each line of stdin is a JSON array of a pattern and texts. The line for it on stdout is the
 * description of the error, or an array that says which texts the whole pattern matches.
 */
final class Re2Patterns {
    private Re2Patterns() {}

    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        InputStreamReader in = new InputStreamReader(System.in, StandardCharsets.UTF_8);
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line : (Iterable<String>) new BufferedReader(in).lines()::iterator) {
            out.println(JSON.writeValueAsString(judge(JSON.readTree(line))));
        }
        out.flush();
    }

    private static JsonNode judge(JsonNode line) {
        Pattern pattern;
        try {
            pattern = Pattern.compile(line.get(0).textValue());
        } catch (PatternSyntaxException error) {
            return JSON.getNodeFactory().textNode(error.getDescription());
        }
        ArrayNode matches = JSON.createArrayNode();
        for (int at = 1; at < line.size(); at++) {
            matches.add(pattern.matcher(line.get(at).textValue()).matches());
        }
        return matches;
    }
}
