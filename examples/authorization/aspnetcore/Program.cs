// What a backend adds for Sidewire, in ASP.NET Core 8 without further packages: an endpoint
// that gives a logged-in user a token, one that tells the relay what a user may see, and one
// that returns a project together with the position to follow it from.
//
// CI does not compile this file. It does what ../node/server.mjs does, which CI runs.
//
// Settings: Relay:Keys, the directory with jwt.key, subscribe.key and ingest.key;
// Relay:IngestUrl; Relay:Grant, "claims" or "backend".

using System.Net.Http.Headers;
using System.Security.Claims;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Authentication.Cookies;
using Microsoft.AspNetCore.WebUtilities;

var builder = WebApplication.CreateBuilder(args);
builder.WebHost.ConfigureKestrel(kestrel => kestrel.Limits.MaxRequestBodySize = 1024 * 1024);

// YOUR SESSIONS: whatever logs your users in. Here their login is expected to have put the
// tenant into the claim "tenant" of the cookie.
builder.Services.AddAuthentication(CookieAuthenticationDefaults.AuthenticationScheme)
    .AddCookie(cookie => cookie.Events.OnRedirectToLogin = context =>
    {
        context.Response.StatusCode = StatusCodes.Status401Unauthorized;
        return Task.CompletedTask;
    });
builder.Services.AddAuthorization();

builder.Services.AddSingleton<RelayKeys>();
builder.Services.AddSingleton<Projects>();
builder.Services.AddSingleton<TokenIssuer>();
builder.Services.AddHttpClient<RelayLog>((services, client) =>
{
    var settings = services.GetRequiredService<IConfiguration>();
    var key = services.GetRequiredService<RelayKeys>().Ingest;
    client.BaseAddress = new Uri(settings["Relay:IngestUrl"] ?? "http://127.0.0.1:3001");
    client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", key);
    client.Timeout = TimeSpan.FromSeconds(1);
});

var app = builder.Build();
app.UseAuthentication();
app.UseAuthorization();
app.Use((http, next) =>
{
    http.Response.Headers.CacheControl = "no-store";
    http.Response.Headers.XContentTypeOptions = "nosniff";
    return next(http);
});

// A token for the user of the session.
app.MapPost("/relay-token", (ClaimsPrincipal user, TokenIssuer tokens) =>
    Results.Text(tokens.Mint(Session.Of(user))))
    .RequireAuthorization();

// What the relay asks before it lets a client subscribe. A user who may see nothing is a 200
// with an empty list; anything else means that this endpoint could not decide.
app.MapPost("/relay-subscribe",
    (HttpRequest request, Question question, RelayKeys keys, Projects projects) =>
{
    if (!RelayKeys.HasKey(request, keys.Subscribe)) return Results.Unauthorized();
    if (question.Tenant is null || question.User is null || question.Topics is null)
    {
        return Results.BadRequest();
    }
    var session = new Session(question.Tenant, question.User);
    var allow = question.Topics.Where(topic => projects.AllowsTopic(session, topic));
    return Results.Json(new { allow, ttl_s = 60 });
});

// A project, and the position in the events that it includes.
app.MapGet("/projects/{id}",
    async (string id, ClaimsPrincipal user, Projects projects, RelayLog log) =>
{
    var session = Session.Of(user);
    if (!projects.MaySee(session, id)) return Results.NotFound();
    // Before the database is read: what is committed later comes as an event.
    var position = await log.Head(session.Tenant);
    return Results.Json(new { project = new { id, name = projects.Name(session, id) }, position });
}).RequireAuthorization();

app.Run();

/// <summary>Who is logged in.</summary>
record Session(string Tenant, string User)
{
    /// <summary>Only the session may decide this, never a parameter, header or body that the
    /// browser's user can choose.</summary>
    public static Session Of(ClaimsPrincipal user) => new(
        user.FindFirstValue("tenant") ?? throw new InvalidOperationException("no tenant"),
        user.FindFirstValue(ClaimTypes.NameIdentifier)
            ?? throw new InvalidOperationException("no user"));
}

/// <summary>What the relay asks.</summary>
record Question(string? Tenant, string? User, string?[]? Topics);

/// <summary>YOUR DATABASE: the projects of each tenant, and who may see them.</summary>
class Projects
{
    record Project(string Name, string[] Members);

    readonly Dictionary<(string Tenant, string Id), Project> projects = new()
    {
        [("acme", "apollo")] = new("Apollo", ["ann", "bob"]),
        [("acme", "gemini")] = new("Gemini", ["ann"]),
    };
    readonly HashSet<Session> admins = [new("acme", "ann")];

    public bool MaySee(Session session, string id) =>
        projects.TryGetValue((session.Tenant, id), out var project)
        && project.Members.Contains(session.User);

    public string Name(Session session, string id) => projects[(session.Tenant, id)].Name;

    public IEnumerable<string> VisibleTo(Session session) =>
        projects.Keys.Where(it => it.Tenant == session.Tenant && MaySee(session, it.Id))
            .Select(it => it.Id);

    /// <summary>Says whether the user may subscribe to the topic.</summary>
    public bool AllowsTopic(Session session, string? topic)
    {
        const string kind = "project:";
        if (topic is null || !topic.StartsWith(kind, StringComparison.Ordinal)) return false;
        var id = topic[kind.Length..];
        return id == "*" ? admins.Contains(session) : MaySee(session, id);
    }
}

/// <summary>Signs tokens.</summary>
class TokenIssuer(RelayKeys keys, Projects projects, IConfiguration settings)
{
    public string Mint(Session session)
    {
        // With "backend" only the kind: which projects, the relay asks the subscribe endpoint.
        string[] topics = settings["Relay:Grant"] == "backend"
            ? ["project:*"]
            : projects.VisibleTo(session).Select(id => $"project:{id}").ToArray();
        var now = DateTimeOffset.UtcNow.ToUnixTimeSeconds();
        // As in [auth] and [[auth.keys]] of sidewire.toml.
        var header = new { alg = "ES256", typ = "JWT", kid = "es256-1" };
        var claims = new
        {
            iss = "https://app.example.com",
            aud = "sidewire",
            tenant_id = session.Tenant,
            user_id = session.User,
            iat = now,
            exp = now + 300,
            topics,
        };
        var signed = $"{Part(header)}.{Part(claims)}";
        using var key = ECDsa.Create();
        key.ImportFromPem(keys.Signing);
        var signature = key.SignData(Encoding.ASCII.GetBytes(signed), HashAlgorithmName.SHA256);
        return $"{signed}.{WebEncoders.Base64UrlEncode(signature)}";
    }

    static string Part(object value) =>
        WebEncoders.Base64UrlEncode(JsonSerializer.SerializeToUtf8Bytes(value));
}

/// <summary>Asks the relay where a tenant's log ends.</summary>
class RelayLog(HttpClient client)
{
    /// <summary>Returns the position of the tenant's newest event; null if there is none, or if
    /// the relay does not answer. Then the page subscribes first and loads again.</summary>
    public async Task<JsonElement?> Head(string tenant)
    {
        try
        {
            var path = $"/v1/tenants/{Uri.EscapeDataString(tenant)}";
            var answer = await client.GetFromJsonAsync<JsonElement>(path);
            return answer.GetProperty("log").GetProperty("head");
        }
        catch (Exception error) when (error is HttpRequestException or OperationCanceledException)
        {
            return null;
        }
    }
}

/// <summary>The keys in a directory.</summary>
class RelayKeys(IConfiguration settings)
{
    readonly string directory = settings["Relay:Keys"] ?? "keys";

    public string Signing => File.ReadAllText(Path.Combine(directory, "jwt.key"));
    public string Subscribe => Read("subscribe.key");
    public string Ingest => Read("ingest.key");

    /// <summary>Compares the request's key in a time that does not depend on how much of it is
    /// right.</summary>
    public static bool HasKey(HttpRequest request, string key)
    {
        const string scheme = "Bearer ";
        var header = request.Headers.Authorization.ToString();
        var isBearer = header.StartsWith(scheme, StringComparison.OrdinalIgnoreCase);
        var given = isBearer ? header[scheme.Length..] : "";
        return CryptographicOperations.FixedTimeEquals(Hash(given), Hash(key));
    }

    static byte[] Hash(string text) => SHA256.HashData(Encoding.UTF8.GetBytes(text));

    /// <summary>Reads a key without the newline that an editor or `openssl rand` leaves at its
    /// end.</summary>
    string Read(string name)
    {
        var path = Path.Combine(directory, name);
        var key = File.ReadAllText(path).TrimEnd('\r', '\n');
        return key.Length >= 32
            ? key
            : throw new InvalidOperationException($"{path} has less than 32 characters");
    }
}
