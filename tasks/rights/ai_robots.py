"""Robots of AI by name, and what each is said to fetch pages for: which names a reservation of training may address.

Names and purposes are facts from the public list ai.robots.txt (github.com/ai-robots-txt/ai.robots.txt, commit 738c80d
of 2026-08-22: operators' own pages, and knownagents.com) and, for those that were in ours before, from their operators'
pages. The purposes are our words for them. Where a list says "unclear" or nothing, we say so too.
"""

from __future__ import annotations

from typing import Final, Literal

Purpose = Literal["training", "data", "unclear", "search", "answers", "actions", "coding"]

PURPOSES: Final[dict[Purpose, str]] = {
    "training": "its operator trains models with what it fetches",
    "data": "what it fetches is collected for others, or for AI products of any kind",
    "unclear": "nobody says what for",
    "search": "an index that is searched",
    "answers": "one page for one question of a person",
    "actions": "acts for a person in a browser",
    "coding": "a tool of programmers",
}
GATHERING: Final[frozenset[Purpose]] = frozenset({"training", "data", "unclear"})
"""The purposes that may end in training: a page that is closed to such a robot is closed to us (the strict reading)."""

_TABLE: Final[dict[Purpose, str]] = {
    "training": """
        AI2Bot; Ai2Bot-Dolma; Amazonbot; anthropic-ai; Applebot-Extended; Brightbot; Bytespider; CCBot;
        ChatGLM-Spider; ClaudeBot; cohere-training-data-crawler; Cotoyogi; DeepSeekBot; FacebookBot; Factset_spyderbot;
        FriendlyCrawler; Google-CloudVertexBot; CloudVertexBot; Google-Extended; GPTBot; ICC-Crawler; img2dataset;
        ISSCyberRiskCrawler; Kangaroo Bot; laion-huggingface-processor; LAIONDownloader; Linguee Bot;
        Meta-ExternalAgent; PanguBot; SBIntuitionsBot; Sidetrade indexer bot; TikTokSpider; Timpibot;
        VelenPublicWebCrawler; YandexAdditional; YandexAdditionalBot; YouBot
    """,
    "data": """
        AgentTimes; aiHitBot; AIWebIndex; ApifyBot; ApifyWebsiteContentCrawler; Awario; bedrockbot; Bravebot;
        CragCrawler; Crawl4AI; Crawlspace; Datenbank Crawler; Diffbot; Echobot Bot; EchoboxBot; ExaBot; FirecrawlAgent;
        GoogleOther; GoogleOther-Image; GoogleOther-Video; HenkBot; ImagesiftBot; imageSpider; LCC; Lightpanda;
        Mozilla-Tabstack; MyCentralAIScraperBot;
        NagetBot; netEstate Imprint Crawler; newsai; omgili; omgilibot; Panscient; panscient.com;
        Poseidon Research Crawler; Querit-SearchBot; QueritBot; Scrapy; ShapBot; Spider; TavilyBot; Terra Cotta;
        TerraCotta; Thinkbot; WARDBot; Webzio-Extended; wpbot; YaK
    """,
    "unclear": """
        Aranet-SearchBot; BuddyBot; Claude-Web; cohere-ai; facebookexternalhit; iAskBot; iaskspider; KunatoCrawler;
        OpenAI; Reflectionbot; WRTNBot
    """,
    "search": """
        AddSearchBot; amazon-kendra; Amzn-SearchBot; Andibot; Anomura; Applebot; atlassian-bot;
        AzureAI-SearchBot; Channel3Bot; Claude-SearchBot; Cloudflare-AutoRAG; ExaSearchBot; LinkupBot; meta-webindexer;
        OAI-SearchBot; PerplexityBot; PetalBot; SemrushBot-OCOB; SemrushBot-SWA; ZanistaBot
    """,
    "answers": """
        AI2Bot-DeepResearchEval; amazon-QBusiness; Amzn-User; bigsur.ai; ChatGPT-User; Claude-User; DuckAssistBot;
        GeistHaus-PageFetcher; Gemini-Deep-Research; Google-Firebase; Google-NotebookLM; GoogleAgent-URLContext;
        kagi-fetcher; Kimi-User; KlaviyoAIBot; LinerBot; meta-externalfetcher; MistralAI-User; NotebookLM;
        Perplexity-User; PhindBot; Poggio-Citations; QualifiedBot; QuillBot; quillbot.com; Shap-User; TongyiBot; UseAI;
        YiyanBot
    """,
    "actions": """
        AmazonBuyForMe; ChatGPT Agent; Google-Agent; GoogleAgent-Mariner; Manus-User; NovaAct; Operator; TwinAgent
    """,
    "coding": "Claude-Code; Code; Cursor; Devin; Google-Gemini-CLI; opencode; Trae",
}

AI_ROBOTS: Final[dict[str, Purpose]] = {
    name: purpose
    for purpose, names in _TABLE.items()
    for name in sorted((" ".join(one.split()) for one in names.split(";")), key=str.lower)
}
"""Name, as its operator writes it → what it fetches pages for."""

GATHERERS: Final[tuple[str, ...]] = tuple(name for name, purpose in AI_ROBOTS.items() if purpose in GATHERING)
"""The robots that gather what models are, or may be, trained on."""
