//! Instructions to the model: override, hijack, leak, jailbreak, false context.
//!
//! Owns the rows of `injection.*`. A space in an expression stands for up to four bytes of white space or punctuation, so
//! that `Ignore -- previous_instructions` is the same phrase. Scores: clear attacks from 8,000, hints below 7,000, talk
//! about attacks at 4,500.

use crate::detect::{
    checks::phrases::{addressed, boundless, echo, leak, marker, ordered, override_, phrase, unbound},
    pattern::{At, Check, Edge, Pattern},
};
use crate::domain::detection::{Family, Severity};

/// A phrase that begins with one of its literals.
const fn attack(
    category: &'static str,
    label: &'static str,
    triggers: &'static [&'static str],
    expression: &'static str,
    check: Check,
) -> Pattern {
    Pattern::new(Family::Injection, category, label, At::Start(triggers), expression)
        .reach(220)
        .score(8_500)
        .check(check)
}

/// A phrase with a literal inside: at most `back` bytes after its begin and `ahead` before its end. Literals are single
/// words where they can be, since anything may stand between two.
const fn around(
    category: &'static str,
    label: &'static str,
    (triggers, back, ahead): (&'static [&'static str], usize, usize),
    expression: &'static str,
    check: Check,
) -> Pattern {
    Pattern::new(Family::Injection, category, label, At::Within { triggers, back }, expression)
        .reach(ahead)
        .score(8_500)
        .check(check)
}

/// The override of another language: script and inflection leave no word edges to ask for.
const fn foreign(triggers: &'static [&'static str], expression: &'static str) -> Pattern {
    attack(OVERRIDE, "Override of instructions", triggers, expression, phrase)
        .edges(Edge::Any, Edge::Any)
        .severity(Severity::High)
        .score(8_800)
}

const OVERRIDE: &str = "injection.instruction_override";
const HIJACK: &str = "injection.role_hijack";
const LEAK: &str = "injection.system_prompt_leak";
const JAILBREAK: &str = "injection.jailbreak";
const CONTEXT: &str = "injection.context_manipulation";

pub(in crate::detect) const TABLE: &[Pattern] = &[
    attack(
        OVERRIDE,
        "Override of instructions",
        &["ignor", "disregard", "forget", "neglect", "overlook", "dismiss", "discard", "abandon", "override", "bypass"],
        r"(?i)(?:ignor(?:e|ing)|disregard(?:ing)?|forget|neglect|overlook|dismiss|discard|abandon|override|bypass) (?:(?:all|any|every|each|both|of|the|your|those|these|this|that|everything|and|or|about|to|in|from|prior|previous|previously|above|earlier|preceding|foregoing|existing|original|initial|former|past|current|given|provided|system|developer|hidden|said|safety|user|written|set) ){1,9}(?:instructions?|prompts?|directives?|directions|guidelines|guardrails|safeguards|commands?|programming|training|rules|orders|constraints|restrictions|polic(?:y|ies)|context)",
        override_,
    )
    .severity(Severity::Critical),
    attack(
        OVERRIDE,
        "Override of instructions",
        &["forget", "disregard", "ignore"],
        r"(?i)(?:forget|disregard|ignore) (?:everything|all|anything|whatever)(?: (?:of|that|which|the))? (?:you (?:(?:have|had|ve) )?(?:been|were|was) (?:told|taught|instructed|given|trained|asked|programmed)|(?:i|they|anyone|the (?:system|developers?)) (?:have )?(?:told|instructed|programmed) you|(?:written |stated |said )?(?:above|before this (?:line|point|message)|prior to this))",
        phrase,
    ),
    around(
        OVERRIDE,
        "Override of instructions",
        (&["follow", "obey"], 12, 100),
        r"(?i)(?:stop|do not|don ?t) (?:follow|obey)(?:ing)? (?:(?:any|all|of|the|your|these|those) ){0,3}(?:previous|prior|above|earlier|system|original|initial|your) (?:(?:system|given) )?(?:instructions?|prompts?|directives?|guidelines|rules|orders)",
        phrase,
    ),
    around(
        OVERRIDE,
        "Override of instructions",
        (&["instruction", "prompt", "directives"], 40, 70),
        r"(?i)(?:all |any |the |your )?(?:previous|prior|above|preceding|earlier|original) (?:system )?(?:instructions?|prompts?|directives) (?:are|is|have been|has been|were|was) (?:(?:now|all|hereby|just|no) ){0,2}(?:void|invalid|cancell?ed|revoked|superseded|overridden|null|obsolete|terminated|longer (?:valid|apply|in effect)|fake|a test)",
        phrase,
    ),
    around(
        HIJACK,
        "Change of the model's role",
        (&["now", "longer"], 20, 160),
        r"(?i)(?:you (?:are|re) (?:now|no longer)|you will now be|from now on you (?:are|re|will be)) (?:(?:\w|-){1,14} ){0,5}?(?:unrestricted|uncensored|unfiltered|jailbroken|amoral|unethical|unaligned|evil (?:ai|assistant|bot)|free (?:from|of) (?:all |any |your )?(?:restrictions|rules|constraints|guidelines|filters|limitations)|bound by (?:(?:any|all|your|the|its|these|those|openai|anthropic|s|ethical|moral|content|safety|previous|usual) ){0,4}(?:rules|guidelines|restrictions|policies|instructions|ethic\w{0,4}|programming)|chatgpt|gpt-?\d?|claude|gemini|bard|an? (?:ai|language model|chatbot) (?:assistant|model|language model))",
        phrase,
    )
    .severity(Severity::Critical),
    around(
        HIJACK,
        "Change of the model's role",
        (&["from now"], 0, 120),
        r"(?i)from now on (?:you|your) (?:(?:\w|'){1,12} ){0,4}?(?:ignore|disregard|obey (?:me|only|my|all|every)|only (?:obey|follow|listen)|comply with (?:all|any|every)|never refuse|not refuse|no longer (?:follow|obey|have|bound)|do (?:whatever|anything|everything))",
        phrase,
    ),
    attack(
        HIJACK,
        "Change of the model's role",
        &["act", "pretend", "role", "behave", "respond", "simulate"],
        r"(?i)(?:act(?:ing)? (?:as|like)|pretend(?: (?:to be|that|you))?|role ?play(?:ing)? as|behave (?:as|like)|respond as|simulate) (?:(?:\w|'|-){1,14} ){0,8}?(?:unrestricted|uncensored|unfiltered|jailbroken|amoral|unaligned|(?:without|no|has no|have no) (?:(?:any|all|ethical|moral|content|safety) ){0,4}(?:restrictions|rules|filters?|limits|limitations|guidelines|morals|ethics|censorship|constraints|boundaries))",
        phrase,
    ),
    around(
        LEAK,
        "Request for the system prompt",
        (&["prompt", "instructions", "message", "directives", "guidelines", "rules"], 160, 8),
        r"(?i)(?:reveal|show|print|repeat|output|display|tell|give|leak|dump|share|write|recite|expose|disclose|provide|return|send|paste|echo|quote|summari[sz]e|translate|list|what (?:is|are|was|were)) (?:(?:me|us|out|back|to|with|verbatim|exactly|all|of|the|full|entire|complete|exact|contents?|text|first|word for word|everything in|here|now|whole|raw|again|in) ){0,7}(?:your|the) (?:(?:full|entire|complete|exact|initial|original|hidden|secret|internal|confidential|own|underlying|base|first|system|developer|current|above) ){0,3}(?:(?:system|initial|hidden|secret|original|internal|developer|exact|starting|base) ?(?:prompts?|instructions|messages?|directives|guidelines|rules)|prompt|pre-?prompt)",
        leak,
    ),
    attack(
        LEAK,
        "Request for the system prompt",
        &["repeat", "print", "output", "reveal", "show", "tell", "write", "copy"],
        r"(?i)(?:repeat|print|output|reveal|show me|tell me|write out|copy) (?:(?:all|of|the|exactly|verbatim|back|out|every|me|to) ){0,5}(?:words?|texts?|everything|content|instructions|prompt|sentences|messages?|lines) (?:(?:that|which|is|are|was|were|written|found|given|you see|in the conversation) ){0,3}(?:above|before this|preceding this|prior to this)",
        echo,
    )
    .score(6_500),
    around(JAILBREAK, "Jailbreak persona", (&["anything"], 8, 8), r"(?i)do anything now", phrase)
        .severity(Severity::Critical),
    around(
        JAILBREAK,
        "Jailbreak persona",
        (&["dan"], 12, 16),
        r"(?:(?i:as|are|be|called|named|like|play) DAN|DAN (?i:mode|prompt|jailbreak))",
        phrase,
    ),
    around(
        JAILBREAK,
        "Jailbreak mode",
        (&["mode"], 100, 60),
        r"(?i)(?:(?:dan|jailbreak|jailbroken|unrestricted|unfiltered|uncensored|evil|god|no-?filter|anti-?gpt) mode(?: (?:is|has been))?(?: now)? (?:enabled|activated|engaged|unlocked|active|on)|(?:enable|activate|enter|engage|switch to|unlock) (?:(?:the|your|into) ){0,2}(?:dan|jailbreak|jailbroken|unrestricted|unfiltered|uncensored|evil|no-?filter) mode|(?:chatgpt|gpt-?\d|claude|gemini|simulate|respond|answer)(?: (?:with|in|now|as|to|a|chatgpt|running)){0,4} (?:developer|god|sudo) mode (?:enabled|output|activated|on))",
        phrase,
    ),
    around(
        JAILBREAK,
        "Removal of restrictions",
        (
            &[
                "restrictions", "guidelines", "filter", "limitations", "policies", "guardrails", "constraints", "considerations",
                "boundaries",
            ],
            160,
            8,
        ),
        r"(?i)(?:without|no|free (?:of|from)|ignor(?:e|ing)|bypass(?:ing)?|disregard(?:ing)?|regardless of|not (?:bound|constrained|limited|restricted) by) (?:(?:any|all|your|the|of|its|kind|sort|usual|typical|openai ?s?|anthropic ?s?) ){0,4}(?:ethical|moral|safety|content|censorship|usage|openai|anthropic|legal) (?:(?:or|and|moral|ethical|legal|safety|content|usage|policy|policies) ){0,3}(?:guidelines|restrictions|filter(?:s|ing)?|policies|constraints|guardrails|limitations|considerations|boundaries)",
        unbound,
    ),
    around(
        JAILBREAK,
        "Removal of restrictions",
        (&["restrictions", "limitations", "filters", "guidelines", "guardrails", "censorship", "ethics", "morals"], 90, 2),
        r"(?i)you (?:have (?:no|zero)|do(?: not|n ?t) have any|are free from(?: all| any)?) (?:(?:ethical|moral|content|safety|built-?in|programmed) (?:or |and )?){0,3}(?:restrictions|limitations|filters|guidelines|guardrails|censorship|ethics|morals)",
        boundless,
    )
    .score(8_000),
    around(
        JAILBREAK,
        "Forbidden refusal",
        (&["refuse", "decline", "reject"], 24, 60),
        r"(?i)(?:never|cannot|can ?t|must not|not allowed to|may not|do not|don ?t) (?:refuse|decline|reject) (?:(?:any|a|my|to|the|user ?s?|single) ){0,3}(?:requests?|answer|questions?|commands?|comply|orders?|prompts?|instructions?)",
        phrase,
    )
    .score(8_000),
    attack(
        JAILBREAK,
        "Jailbreak persona",
        &["always", "evil", "opposite", "uncensored", "unfiltered", "unrestricted", "strive"],
        r"(?i)(?:always intelligent and machiavellian|evil confidant|opposite mode|un(?:censored|filtered|restricted) ai|strive to avoid norms)",
        phrase,
    )
    .score(5_500),
    attack(
        CONTEXT,
        "False marker of a chat template",
        &["<|im_start|>", "<|system|>", "<|start_header_id|>", "<<sys>>", "[system]", "###", "<system>", "</system>", "[/inst]", "<|endoftext|>"],
        r"(?i)(?:<\|(?:im_start|start_header_id)\|>\s{0,2}system|<\|system\|>|<<sys>>|\[system\]|### system|</?system>|\[/inst\]|<\|endoftext\|>)",
        marker,
    )
    .edges(Edge::Any, Edge::Any),
    around(
        CONTEXT,
        "Words to an AI that reads",
        (&[" ai", "llm", "language"], 40, 40),
        r"(?i)(?:if you (?:are|re)(?: reading this as)? an? (?:ai|llm|large language|language)(?: ?(?:model|assistant|agent|bot|system))?|attention(?: all| any)? (?:ai|llm)s?(?: (?:models?|assistants?|agents?|systems?))?|(?:note|message|instructions?|important)(?: to| for)(?: the| any| all)? (?:ai|llm)s?(?: (?:models?|assistants?|agents?|systems?|reviewers?))?|(?:for|to) (?:any|the) (?:ai|llm)s? (?:models?|assistants?|agents?|reviewers?|reading))",
        addressed,
    ),
    around(
        CONTEXT,
        "Secrecy from the user",
        (&["the user"], 48, 2),
        r"(?i)(?:(?:do(?: not|n ?t)|never) (?:tell|inform|mention|let|alert)|without (?:telling|informing|alerting|mentioning)|hide)(?: (?:this|it|that|anything))?(?: (?:to|from))? the user",
        phrase,
    )
    .severity(Severity::Medium)
    .score(4_500),
    attack(
        CONTEXT,
        "Replacement of the task",
        &["your", "new", "updated"],
        r"(?i)(?:your (?:new|real|actual|true|only|updated) (?:system prompt|instructions?|task|purpose|role|objective|goal)|(?:new|updated) system prompt) (?:is|are|now|will be)",
        ordered,
    )
    .severity(Severity::Medium),
    attack(
        CONTEXT,
        "False end of the prompt",
        &["end", "begin", "new", "system", "admin"],
        r"(?i)(?:end of (?:the )?(?:system prompt|prompt|instructions|user input)|(?:end|begin|new) system (?:prompt|message)|(?:system|admin) override)",
        ordered,
    )
    .severity(Severity::Medium),
];

/// The override in other languages.
pub(in crate::detect) const LANGUAGES: &[Pattern] = &[
    // German
    foreign(
        &["ignorier", "vergiss", "vergessen sie", "missachte"],
        r"(?i)(?:ignorier(?:e|en|t)?|vergiss|vergessen|missachten?) (?:(?:sie|bitte|alle|aller|die|deine|ihre|jegliche|sämtliche|saemtliche|von|oben|und|meine) ){0,4}(?:vorherigen?|vorigen?|bisherigen?|obigen?|früheren?|frueheren?|vorangegangenen?|vorangehenden?|ursprünglichen?|deine|ihre|alle|system) ?(?:gegebenen |erhaltenen )?(?:anweisung|instruktion|befehl|regeln|vorgabe|aufforderung|prompt|richtlinie|anleitung)",
    ),
    // French
    foreign(
        &["ignore", "oublie", "ne tiens pas compte", "ne tenez pas compte", "ne tenez plus compte"],
        r"(?i)(?:ignore[zr]?|oublie[zr]?|ne t(?:iens|enez) (?:pas|plus) compte (?:de|des)) (?:(?:toutes?|tous|les|tes|vos|de|des|ces) ){0,4}(?:(?:précédentes?|precedentes?|antérieures?|anterieures?) )?(?:instructions?|consignes?|directives?|règles|regles|ordres) (?:(?:données|reçues|qui|ci) ){0,2}(?:précéd|preced|antérieur|anterieur|dessus|initiales|du système|d origine)",
    ),
    // Spanish
    foreign(
        &["ignora", "ignore", "olvida", "olvide", "olvídate", "descarta", "haz caso omiso", "no sigas"],
        r"(?i)(?:ignor(?:a|e|ar|en|ad)|olvid(?:a|e|ar|en)|olvídate(?: de)?|descarta|haz caso omiso(?: de| a)?|no sigas) (?:(?:todas?|todos|las|los|tus|sus|de|estas|cualquier) ){0,4}(?:(?:anteriores|previas|previos) )?(?:instrucci(?:ones|ón)|indicaciones|órdenes|ordenes|reglas|directrices|directivas) (?:(?:que|recibidas|dadas|del|de) ){0,2}(?:anterior|previ|arriba|sistema|originales|iniciales)",
    ),
    // Italian
    foreign(
        &["ignora", "ignori", "dimentica", "trascura", "non seguire"],
        r"(?i)(?:ignor(?:a|i|are|ate)|dimentica(?:re|te)?|trascura(?:re)?|non seguire) (?:(?:tutte|tutti|le|gli|i|tue|ogni|queste|qualsiasi|di) ){0,4}(?:(?:precedenti) )?(?:istruzion[ei]|direttive|regole|comandi|indicazioni|ordini) (?:(?:che|ricevute|date|del|di) ){0,2}(?:precedent|anterior|sopra|sistema|originali|iniziali)",
    ),
    foreign(
        &["ignor", "dimentica"],
        r"(?i)(?:ignor(?:a|ez|e)|dimentica) (?:tutte )?(?:le|les|las|as) (?:precedenti|précédentes|anteriores) (?:istruzioni|instructions|instrucciones|instruções|consignes)",
    ),
    // Portuguese
    foreign(
        &["ignore", "ignora", "esqueça", "esqueca", "desconsidere", "não siga"],
        r"(?i)(?:ignor(?:e|a|ar|em)|esque(?:ç|c)a|desconsidere|não siga) (?:(?:todas|todos|as|os|suas|das|de|estas|quaisquer) ){0,4}(?:instru(?:çõ|co|cõ)es|orienta(?:çõ|co)es|regras|comandos|ordens|diretrizes) (?:(?:que|recebidas|dadas|do|de) ){0,2}(?:anterior|prévi|previ|acima|sistema|originais|iniciais)",
    ),
    // Dutch
    foreign(
        &["negeer", "vergeet"],
        r"(?i)(?:negeer|vergeet) (?:(?:alle|al|de|je|jouw|uw|deze|van) ){0,4}(?:vorige|eerdere|voorgaande|bovenstaande|voorafgaande|bestaande|systeem) ?(?:instructie|opdracht|regels|aanwijzing|prompt|richtlijn|bevel)",
    ),
    // Polish
    foreign(
        &["zignoruj", "ignoruj", "zapomnij", "pomiń"],
        r"(?i)(?:zignoruj|ignoruj|zapomnij|pomiń) (?:(?:o|wszystkie|wszystkich|swoje|te|moje) ){0,3}(?:poprzedni|wcześniejsz|wczesniejsz|powyższ|powyzsz|dotychczasow|swoje|systemow)\w{0,4} ?(?:instrukcj|polece|zasad|wytyczn|rozkaz|prompt|regu)",
    ),
    // Russian
    foreign(
        &[
            "игнорируй",
            "Игнорируй",
            "ИГНОРИРУЙ",
            "проигнорируй",
            "Проигнорируй",
            "забудь",
            "Забудь",
            "ЗАБУДЬ",
            "не обращай",
            "Не обращай",
            "не следуй",
            "Не следуй",
        ],
        r"(?:(?:игнорируй|Игнорируй|проигнорируй|Проигнорируй|забудь|Забудь|не следуй|Не следуй)(?:те)?|ИГНОРИРУЙ(?:ТЕ)?|ЗАБУДЬ(?:ТЕ)?|(?:не|Не) обращай(?:те)? внимания на) (?iu:(?:(?:все|всех|обо|о|об|свои|твои|эти|мои) ){0,4}(?:предыдущ|прежн|предшеству|вышеуказанн|вышеизложенн|приведенн|ранее данн|данные ранее|системн|изначальн|свои|твои)[а-яё]{0,4} (?:[а-яё]{2,12} ){0,2}?(?:инструкц|указан|команд|правил|промпт|директив|установк))",
    ),
    // Chinese, simplified and traditional
    foreign(
        &["忽略", "无视", "無視", "忘记", "忘記", "忘掉", "不要理会", "不要理會", "忽視", "忽视"],
        r"(?:忽略|无视|無視|忘记|忘記|忘掉|不要理会|不要理會|忽視|忽视)[^\n]{0,24}?(?:之前|以上|先前|前面|上面|此前|所有|上述|以前|系统|系統)[^\n]{0,24}?(?:指令|指示|提示|说明|說明|规则|規則|命令|指南|设定|設定)",
    ),
    // Japanese
    foreign(
        &["これまで", "以前の", "上記", "前の", "先の", "今までの", "すべての", "全ての", "システム"],
        r"(?:これまで|以前の|上記|前の|先の|今までの|すべての|全ての|システム)[^\n]{0,24}?(?:指示|命令|指令|ルール|プロンプト|設定)[^\n]{0,24}?(?:無視|忘れ|破棄)",
    ),
    // Korean
    foreign(
        &["이전", "위의", "앞의", "지금까지", "모든", "기존", "시스템"],
        r"(?:이전|위의|앞의|지금까지|모든|기존|시스템)[^\n]{0,30}?(?:지시|명령|지침|프롬프트|규칙|설정)[^\n]{0,20}?(?:무시|잊어|잊고)",
    ),
    // Arabic
    foreign(
        &["تجاهل", "انس", "إنس", "لا تتبع"],
        r"(?:تجاهلي?|انسى|انس |إنس|لا تتبع)[^\n]{1,48}?(?:التعليمات|الأوامر|الاوامر|الإرشادات|التوجيهات|القواعد|تعليماتك)[^\n]{0,40}?(?:السابقة|أعلاه|اعلاه|الأصلية|الاصلية|النظام|السابقه)",
    ),
    foreign(&["تجاهل"], r"تجاهل[^\n]{1,16}?(?:تعليماتك|أوامرك)"),
    // Hindi
    foreign(
        &["पिछले", "पिछली", "पहले", "उपरोक्त", "सभी", "ऊपर"],
        r"(?:पिछले|पिछली|पहले|उपरोक्त|सभी|ऊपर)[^\n]{0,60}?(?:निर्देश|आदेश|हिदायत|नियम)[^\n]{0,40}?(?:अनदेखा|अनदेखी|नज़रअंदाज़|नजरअंदाज|भूल|उपेक्षा|इग्नोर)",
    ),
    // Turkish
    foreign(
        &["önceki", "onceki", "yukarıdaki", "tüm ", "bütün "],
        r"(?i)(?:önceki|onceki|yukarıdaki|tüm|bütün) (?:(?:tüm|bütün|önceki|verilen|sistem) ){0,3}(?:talimat|yönerge|komut|kural|emir|istem)[a-z\xC4\xB1\xC3\xBC]{0,8} (?:yok say|görmezden gel|göz ard|unut|dikkate alma|yoksay)",
    ),
];
