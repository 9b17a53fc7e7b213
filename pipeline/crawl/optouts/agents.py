"""Crawlers for AI training that sites shut out by name."""

# those that ai-robots-txt/ai.robots.txt (README and table of bot metrics, 2026-08) says collect
# data to train models, or data sets that others train on; assistants and search are not among them
AGENT_NAMES = frozenset(
    name.lower()
    for name in (
        *("AI2Bot", "Ai2Bot-Dolma", "anthropic-ai", "Applebot-Extended", "Bytespider", "CCBot"),
        *("ChatGLM-Spider", "Claude-Web", "ClaudeBot", "CloudVertexBot", "cohere-ai"),
        *("cohere-training-data-crawler", "Cotoyogi", "DeepSeekBot", "Diffbot", "FacebookBot"),
        *("Google-CloudVertexBot", "Google-Extended", "GPTBot", "ICC-Crawler", "ImagesiftBot"),
        *("imageSpider", "img2dataset", "laion-huggingface-processor", "LAIONDownloader"),
        *("Meta-ExternalAgent", "omgili", "omgilibot", "PanguBot", "SBIntuitionsBot"),
        *("TikTokSpider", "Timpibot", "VelenPublicWebCrawler", "Webzio-Extended"),
    )
)
