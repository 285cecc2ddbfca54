"""Names by which the rules of `benchmarks.text.entities` know persons, places and organisations."""

from __future__ import annotations

__all__ = ["BODIES", "GIVEN_NAMES", "ORGANISATIONS", "PLACES"]


def _list(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(";"))


# Given names; two capitalised words of which the first is one of these are a person.
GIVEN_NAMES = _list("""
Adam; Al; Alan; Alex; Alfred; Alice; Allison; Amy; Andrew; Andy; Angela; Ann; Anna; Anne; Anthony; Arnold; Arthur;
Barbara; Ben; Benjamin; Bernard; Bill; Bob; Brad; Brian; Bruce; Cameron; Carl; Carol; Caroline; Catherine; Charles;
Charlie; Chris; Christian; Christopher; Clint; Colin; Dan; Daniel; Danny; Dave; David; Dennis; Diane; Donald; Ed;
Eddie; Edward; Elizabeth; Ellen; Emily; Eric; Frank; Fred; Gary; George; Gerard; Greg; Guy; Harold; Harrison;
Harry; Harvey; Heather; Helen; Henry; Howard; Hugh; Ivan; Jack; Jackie; Jacques; James; Jane; Jason; Jean; Jeff;
Jennifer; Jeremy; Jerry; Jesse; Jim; Jimmy; Joan; Joe; Joel; John; Johnny; Jonathan; Joseph; Josh; Juan; Judy;
Julia; Julie; Karen; Kate; Katie; Keith; Ken; Kenneth; Kevin; Larry; Laura; Lee; Leonardo; Linda; Lisa; Louis;
Luis; Madonna; Margaret; Maria; Mark; Martin; Mary; Matt; Matthew; Max; Mel; Michael; Michel; Michelle; Mick;
Miguel; Mike; Mikhail; Mohammed; Nancy; Nelson; Nicholas; Nicolas; Nicole; Oliver; Oscar; Pat; Patricia; Patrick;
Paul; Pedro; Peter; Phil; Philip; Quentin; Rachel; Ralph; Ray; Raymond; Rebecca; Richard; Rick; Rob; Robert;
Roberto; Robin; Roger; Roman; Ron; Ronald; Ruth; Ryan; Salman; Sam; Samuel; Sandra; Sarah; Scott; Sean; Sharon;
Simon; Sophie; Stanley; Stephen; Steve; Steven; Sue; Susan; Ted; Terry; Theodore; Thomas; Tim; Timothy; Tom; Tony;
Vincent; Walter; Warren; Wes; William; Woody
""")

# Longer names stand before shorter ones that they begin with.
PLACES = _list("""
Afghanistan; Africa; Alabama; Alaska; Albany; America; Arab Emirates; Argentina; Arizona; Arkansas; Armenia; Asia;
Atlanta; Australia; Austria; Baghdad; Baltimore; Beijing; Beirut; Belgium; Berlin; Bermuda; Bolivia; Boston;
Brazil; Britain; Brooklyn; Bronx; Brussels; Bulgaria; California; Cambodia; Canada; Central America; Chad; Chicago;
Chile; China; Cleveland; Colombia; Colorado; Connecticut; Cuba; Cyprus; Czechoslovakia; Dallas; Denmark; Detroit;
East Germany; Eastern Europe; Ecuador; Egypt; El Salvador; England; Estonia; Ethiopia; Europe; Florida; France;
Geneva; Georgia; Germany; Greece; Greenwich Village; Guatemala; Haiti; Harlem; Havana; Hawaii; Hollywood; Honduras;
Hong Kong; Houston; Hungary; Iceland; Illinois; India; Indiana; Indonesia; Iowa; Iran; Iraq; Ireland; Israel;
Italy; Jamaica; Japan; Jerusalem; Jordan; Kansas; Kentucky; Korea; Kuwait; Latin America; Lebanon; Liberia; Libya;
Lithuania; London; Long Island; Los Angeles; Louisiana; Maine; Malaysia; Manhattan; Maryland; Massachusetts;
Mexico; Miami; Michigan; Minnesota; Mississippi; Missouri; Moscow; Namibia; Nebraska; Netherlands; Nevada;
New Hampshire; New Jersey; New Mexico; New York City; New York State; New York; New Zealand; Nicaragua; Nigeria;
North Carolina; North Korea; Norway; Ohio; Oklahoma; Oregon; Pakistan; Palestine; Panama; Paraguay; Paris;
Pennsylvania; Peru; Philadelphia; Philippines; Poland; Portugal; Puerto Rico; Queens; Romania; Rome; Russia;
Rwanda; San Francisco; Saudi Arabia; Seattle; Somalia; South Africa; South Carolina; South Korea; Soviet Union;
Spain; Staten Island; Sudan; Sweden; Switzerland; Syria; Taiwan; Tennessee; Texas; Thailand; Times Square; Tokyo;
Turkey; Uganda; Ukraine; United Kingdom; United States; Uruguay; Utah; Vermont; Vienna; Vietnam; Virginia;
Wall Street; Washington; West Germany; Westchester; Wisconsin; Zimbabwe
""")

# Organisations with names of their own.
ORGANISATIONS = _list("""
Amazon; Apple; AT&T; Canon; CIA; Congress; Creative; Disney; Facebook; FBI; Google; House of Representatives; IBM;
Linksys; Microsoft; NASA; NATO; Nikon; Nokia; Norton; Pentagon; Senate; Sony; Supreme Court; T-Mobile; Twitter;
United Nations; White House; Yahoo; YouTube
""")

# What the names of other organisations end with.
BODIES = _list("""
Administration; Agency; Assembly; Association; Authority; Bank; Board; Bureau; Church; College; Commission;
Committee; Company; Congress; Corporation; Council; Court; Department; Federation; Foundation; Fund; Institute;
Legislature; Ministry; Museum; Party; School; Service; Society; University
""")
