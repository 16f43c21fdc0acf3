"""
Recognise a refusal by a content policy, in English and Chinese.

A refused prompt is refused again: such a job fails at once and for good, and no
rerun submits it unless told to. So a match must be specific. A *code* is proof; of
the *words*, only those that no ordinary error would use.
"""

from __future__ import annotations

import re

# Alibaba Model Studio: DataInspectionFailed (400, "Input or output data may contain inappropriate
# content"), IPInfringementSuspect. Volcengine Ark: {Input,Output}{Text,Image,Video,Audio}SensitiveContentDetected
# with suffixes such as .PolicyViolation and .PrivacyInformation, and …RiskDetection for the optional
# content security service. OpenAI: moderation_blocked, content_policy_violation.
_CODE = re.compile(
    r"data_?inspection_?failed|ip_?infringement_?suspect|sensitive_?content_?detected"
    r"|(?:input|output)(?:text|image|video|audio)risk_?detection|content_?risk_?blocked"
    r"|content_policy_violation|moderation_blocked|policy_?violation|content_filter(?:ed)?\b"
    r"|\bsensitive_words_detected\b|\bprompt_blocked\b"
)
_WORDS = re.compile(
    r"content[ _-]policy|usage polic(?:y|ies)|safety (?:system|policy|filter)"
    r"|(?:inappropriate|sensitive|prohibited|harmful|unsafe) (?:content|information|words?|material)"
    r"|green net|content moderation|(?:blocked|rejected|refused|flagged) by moderation"
    r"|copyright (?:restriction|infringement)"
    r"|敏感|违规|违禁|内容安全|(?:未通过|不通过|没有通过).{0,6}审核|审核(?:未|不|失败|拒绝|拦截)"
)


def is_moderation_code(words: str) -> bool:
    """
    Say whether an error's code, or a code quoted in its message, is one of a content policy.

    Args:
        words: Code and message in lower case.

    >>> is_moderation_code("inputtextsensitivecontentdetected.policyviolation")
    True
    """
    return _CODE.search(words) is not None


def is_moderation(words: str) -> bool:
    """
    Say whether code or wording of an error is that of a content policy.

    >>> is_moderation("输入内容包含敏感信息"), is_moderation("first frame is missing")
    (True, False)
    """
    return is_moderation_code(words) or _WORDS.search(words) is not None
